"""Seconds of the demo's build: from nothing, and again with nothing to do.

python -m benchmarks.demo_build --runs 3
"""

from __future__ import annotations

import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Annotated

import typer

from pipeline.corpus import Corpus
from pipeline.demo import PORT, served
from pipeline.summary import seconds_by_group


def build(out: str, seeds: list[str]) -> float:
    """Seconds of one run of the command, start of the process to its end."""
    began = time.perf_counter()
    command = [sys.executable, "-m", "pipeline.build", "--spec", "specs/demo.yaml", "--out", out]
    subprocess.run([*command, "--set", f"source.seeds=[{', '.join(seeds)}]"], check=True, capture_output=True)
    return time.perf_counter() - began


def main(runs: Annotated[int, typer.Option(min=1)] = 3) -> None:
    """Print medians over runs, each into a new folder."""
    fresh: list[float] = []
    again: list[float] = []
    groups: dict[str, list[float]] = {}
    with served(PORT) as base, tempfile.TemporaryDirectory() as folder:
        seeds = [f"{base}/{name}/index.html" for name in ("sasview", "pygame", "pygame-ce")]
        for run in range(runs):
            out = str(Path(folder, f"run-{run}"))
            fresh.append(build(out, seeds))
            again.append(build(out, seeds))
            for group, seconds in seconds_by_group(Corpus(out)).items():
                groups.setdefault(group, []).append(seconds)
    print(f"from nothing    {statistics.median(fresh):6.1f} s  ({min(fresh):.1f} to {max(fresh):.1f}, {runs} runs)")
    print(f"nothing to do   {statistics.median(again):6.1f} s  ({min(again):.1f} to {max(again):.1f})")
    for group, values in groups.items():
        print(f"  {group:<14}{statistics.median(values):6.1f} s")


if __name__ == "__main__":
    typer.run(main)
