"""Seconds of the demo: from nothing, and again with nothing to do. Assets are fetched before the clock starts.

python -m benchmarks.demo            # builds and trains, once
python -m benchmarks.demo --steps 0 --runs 3    # the corpus alone
"""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Annotated

import typer

from pipeline.corpus.summary import seconds_by_group
from pipeline.corpus.version import Corpus
from pipeline.demo.__main__ import PORT


def seconds_of(*command: str) -> float:
    """Seconds of one run of a command, start of the process to its end."""
    began = time.perf_counter()
    subprocess.run([sys.executable, "-m", *command], check=True, capture_output=True)
    return time.perf_counter() - began


def main(
    runs: Annotated[int, typer.Option(min=1)] = 1,
    steps: Annotated[int | None, typer.Option(help="Training steps instead of the recipe's; 0: no training.")] = None,
    port: int = PORT,
) -> None:
    """Print medians over runs, each into a new folder."""
    seconds: dict[str, list[float]] = {"from nothing": [], "nothing to do": []}
    for group in ("demo", "train"):
        seconds_of("assets", "fetch", "--group", group)
    options = ["--port", str(port), *(["--steps", str(steps)] if steps is not None else [])]
    with tempfile.TemporaryDirectory() as folder:
        for run in range(runs):
            out = Path(folder, f"run-{run}")
            for name in ("from nothing", "nothing to do"):
                seconds[name].append(seconds_of("pipeline.demo", "--out", str(out), *options))
            for group, each in seconds_by_group(Corpus(str(out))).items():
                seconds.setdefault(f"  {group}", []).append(each)
            if steps != 0:
                evaluation = json.loads((out / "train" / "evaluation.json").read_text())
                seconds.setdefault("  train", []).append(evaluation["run"]["seconds"])
    for name, values in seconds.items():
        print(f"{name:<16}{statistics.median(values):6.1f} s  ({min(values):.1f} to {max(values):.1f}, {runs} runs)")


if __name__ == "__main__":
    typer.run(main)
