"""A build as a whole: mistakes found before it starts, the dry run, the run, its record, and publishing a version."""
