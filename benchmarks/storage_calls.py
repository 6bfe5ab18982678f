"""Requests to an S3 store that a build makes, and one with nothing to do, on a local server that counts them.

python -m benchmarks.storage_calls                          # as many key ranges as 2 and as 8 processors get
python -m benchmarks.storage_calls --workers 2 --detail     # and what the requests were about
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from collections import Counter
from pathlib import Path
from typing import Annotated

import typer

from tests.end_to_end.builds import environment, setting, write_spec
from tests.end_to_end.site import served, write_site
from tests.s3_server import S3Server, s3_server


def _asked(server: S3Server, spec: Path, url: str, workers: int, *more: str) -> list[tuple[str, str]]:
    """(kind, what it was about) of each request of one build."""
    server.log.clear()
    command = ["pipeline.build", "--spec", str(spec), "--out", url, *setting(resources__workers=workers), *more]
    done = subprocess.run(
        [sys.executable, "-m", *command], env=environment(**server.env), capture_output=True, text=True
    )
    if done.returncode:
        sys.exit(done.stderr)
    return [(call.kind, _about(call.path.partition("/")[2])) for call in server.log]


def _about(path: str) -> str:
    """The folder and the kind of file; rows by what they are of."""
    top, _, rest = path.partition("/")
    ending = path.rpartition(".")[2] if "." in path.rpartition("/")[2] else "folder"
    return f"{top}/{rest.split('/')[0]} {ending}" if rest else f"{top} {ending}"


def main(
    workers: Annotated[list[int] | None, typer.Option(help="Processors to build with; repeatable.")] = None,
    detail: Annotated[bool, typer.Option(help="Also say what the requests were about.")] = False,
) -> None:
    """Print a line for each build: in one go, stopped half way, gone on with, and with nothing left to do."""
    with tempfile.TemporaryDirectory() as folder, served(write_site(Path(folder, "site"))) as site:
        spec = write_spec(Path(folder, "prints.yaml"), site.url)
        with s3_server("corpora") as server:
            for count in workers or [2, 8]:
                url = f"s3://corpora/whole-{count}"
                half = f"s3://corpora/half-{count}"
                for name, place, more in (
                    ("a build", url, []),
                    ("nothing to do", url, []),
                    ("as far as the text", half, ["--until", "text"]),
                    ("the rest", half, []),
                ):
                    asked = _asked(server, spec, place, count, *more)
                    kinds = Counter(kind for kind, _ in asked)
                    said = ", ".join(f"{number:,} {kind}" for kind, number in kinds.most_common())
                    print(f"{count} processors, {name:<20}{len(asked):6,} requests: {said}", flush=True)
                    if detail:
                        for (kind, about), number in Counter(asked).most_common(45):
                            print(f"    {number:6,} {kind:<7}{about}")


if __name__ == "__main__":
    typer.run(main)
