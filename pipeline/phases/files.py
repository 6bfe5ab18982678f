"""Files that a source is made of, as they enter keys."""

from __future__ import annotations

import functools
import os

import fsspec

from pipeline.engine.mistake import UserMistake
from pipeline.engine.storage import is_local, said
from schemas.keys import file_digest


def file_state(field: str, path: str) -> str:
    """Digest of a file's content; of an object elsewhere the state that its store tells.

    UserMistake, naming the spec's field, for what cannot be read.
    """
    try:
        if not is_local(path):
            filesystem, name = fsspec.core.url_to_fs(path)
            return str(filesystem.ukey(name))
        state = os.stat(path)
        return _digest_once(path, state.st_size, state.st_mtime_ns)
    except Exception as error:  # each filesystem has its own errors; all are about this path
        raise UserMistake(f"{field}: {path}: cannot be read: {said(error)}") from None


@functools.cache
def _digest_once(path: str, size: int, modified: int) -> str:
    """A file's digest, read once a process for each state of it: a driver makes the graph more than once."""
    return file_digest(path)
