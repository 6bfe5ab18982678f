"""A disk that is full, as one line: libraries say it each in its own words, and most without saying so."""

from __future__ import annotations

import errno
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from trainer.errors import NoSpace

_FULL = (errno.ENOSPC, errno.EDQUOT)
_RUST = re.compile(r"\(os error (\d+)\)")


def is_full(error: BaseException) -> bool:
    """Whether an error comes from a full disk or quota: itself, or what a library made of it."""
    seen: BaseException | None = error
    while seen is not None:
        # safetensors and tokenizers are written in Rust, which puts the number into the text.
        number = seen.errno if isinstance(seen, OSError) else int((_RUST.findall(str(seen)) or [0])[0])
        if number in _FULL:
            return True
        # torch's zip writer fails once more when it closes the file, and shows the first failure as the context.
        seen = seen.__cause__ or seen.__context__
    return False


@contextmanager
def room_for(path: Path) -> Iterator[None]:
    """Around the writing of a file or folder: NoSpace names it when there is no room."""
    try:
        yield
    except Exception as error:
        if isinstance(error, NoSpace) or not is_full(error):
            raise
        raise NoSpace(f"no space left for {path}") from None
