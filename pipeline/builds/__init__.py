"""A build as a whole: what a dry run says, whether the source was reached, and publishing a version."""
