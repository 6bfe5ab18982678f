"""How every command of the pipeline ends: 0 done, 2 the user's mistake in one line, 1 anything else.

130 and 143 are what a shell says of Ctrl-C and SIGTERM.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from pipeline.engine.credentials import masked
from pipeline.engine.damage import Damaged
from pipeline.engine.ending import Terminated
from pipeline.engine.mistake import UserMistake
from pipeline.engine.storage import StorageError, StorageFull

if TYPE_CHECKING:
    from pipeline.builds.order import Order


def run_command(app: typer.Typer) -> None:
    """Run a typer application as a process."""
    code: object = 0
    try:
        code = app(standalone_mode=False)
    except UserMistake as mistake:
        fail(str(mistake), 2)
    except (Damaged, StorageError, StorageFull) as error:
        fail(str(error), 1)
    except (typer.Abort, KeyboardInterrupt):
        code = 130
    except Terminated:
        fail("terminated; run the same command again to go on", 143)
    except Exception as error:
        # Usage errors of the command line (unknown option, missing value) know their own one line.
        if hasattr(error, "format_message"):
            fail(error.format_message(), 2)
        # What the operating system says of a file is the line itself; Ray's copies of it carry a traceback.
        if isinstance(error, OSError) and error.strerror:
            fail(str(error), 1)
        raise
    if code == 130:  # what newer releases of typer return for Ctrl-C
        fail("interrupted; run the same command again to go on", 130)
    sys.exit(code if isinstance(code, int) else 0)


def run_build(order: Order) -> None:
    """Bring a corpus up to date, and print what there is to say of it."""
    from pipeline.builds.run import build

    try:
        for line in build(order):
            print(line)
    except Exception as error:
        from pipeline.engine.recovery import line_for_people

        if said := line_for_people(error):
            fail(said, 1)
        raise


def share_path() -> None:
    """Have workers import the same packages as this process, from wherever it found them."""
    root = str(Path(__file__).resolve().parent.parent)
    paths = os.environ.get("PYTHONPATH", "").split(os.pathsep)
    if root not in paths:
        os.environ["PYTHONPATH"] = os.pathsep.join([root, *filter(None, paths)])


def fail(message: str, code: int) -> None:
    """One line on standard error, and the exit code."""
    print(f"error: {one_line(message)}", file=sys.stderr)
    sys.exit(code)


def one_line(text: str) -> str:
    """Text without line breaks and passwords, and with escapes for what a terminal would obey or could not show."""
    text = masked(text)
    flat = " ".join(line.strip() for line in text.splitlines()) if "\n" in text or "\r" in text else text
    return "".join(char if char.isprintable() else char.encode("unicode_escape").decode() for char in flat)
