"""Side-by-side timings against named peers; each module says how to run it."""
