"""How every command of the trainer ends: one line for what ends it early, and the exit code.

0 done, 2 the user's mistake, 130 Ctrl-C, 143 SIGTERM with the steps done in a checkpoint, 1 anything else.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import typer

from trainer.errors import CorruptRecordError, NoSpace, NotFiniteError, Terminated, UserError


@contextmanager
def exit_codes() -> Iterator[None]:
    """Around a command's work: what ends it early becomes one line on standard error and an exit code."""
    try:
        yield
    except UserError as error:
        _say(error)
        raise typer.Exit(2) from None
    except (CorruptRecordError, NotFiniteError, NoSpace) as error:
        _say(error)
        raise typer.Exit(1) from None
    except OSError as error:
        if not error.strerror or error.filename is None:
            raise
        # What the operating system says of a file is the line itself.
        _say(error)
        raise typer.Exit(1) from None
    except Terminated as error:
        typer.echo(one_line(str(error)), err=True)
        raise typer.Exit(143) from None


def _say(error: Exception) -> None:
    """The line of an error; of a launcher's ranks, which all end with the same one, the first of each node says it."""
    if os.environ.get("LOCAL_RANK", "0") == "0":
        typer.echo(f"error: {one_line(str(error))}", err=True)


def run_command(app: typer.Typer) -> None:
    """Run a typer application as a process: a mistake in its options is one line too."""
    code: object = 0
    try:
        code = app(standalone_mode=False)
    except (typer.Abort, KeyboardInterrupt):
        typer.echo("interrupted; run the same command to go on", err=True)
        sys.exit(130)
    except Exception as error:
        # Usage errors (unknown option, missing or impossible value) know their own line.
        if not hasattr(error, "format_message"):
            raise
        typer.echo(f"error: {one_line(error.format_message())}", err=True)
        sys.exit(2)
    sys.exit(code if isinstance(code, int) else 0)


def one_line(text: str) -> str:
    """Text without line breaks, and with escapes for what a terminal would obey or could not show."""
    flat = " ".join(text.splitlines())
    return "".join(char if char.isprintable() else char.encode("unicode_escape").decode() for char in flat)
