"""Sources on disk: records of WARC files, folders of HTML."""
