"""python -m tests.verdict [pytest's arguments]: pytest in a process of its own, whose death is told from a failure.

Exit code: pytest's; 1 when the tests passed and the interpreter then died or ended otherwise.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
from pathlib import Path


def main(
    arguments: list[str], program: tuple[str, ...] = (sys.executable, "-X", "faulthandler", "-m", "pytest")
) -> int:
    """Run `program` with the arguments; it is expected to write its verdict into the file INTERLOOM_VERDICT."""
    with tempfile.TemporaryDirectory(prefix="interloom-") as scratch:
        verdict = Path(scratch) / "verdict"
        code = subprocess.call([*program, *arguments], env={**os.environ, "INTERLOOM_VERDICT": str(verdict)})
        said = verdict.read_text() if verdict.exists() else None
    if code < 0:
        how = {"0": "tests passed but", None: "before the tests had ended", "5": "no test was chosen and"}.get(
            said, "tests failed and"
        )
        print(f"{how} the interpreter died: signal {-code} ({signal.Signals(-code).name})", file=sys.stderr)
        return 1
    if said is not None and int(said) != code:
        print(f"pytest's verdict was {said} but its process ended with {code}", file=sys.stderr)
        return code or 1
    return code


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
