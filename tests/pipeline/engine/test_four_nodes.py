"""Four nodes share the work, and one of them may die."""

from __future__ import annotations

import os
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

from tests.pipeline.conftest import Run
from tests.pipeline.engine.four_nodes import COUNT, SlowSquare
from tests.pipeline.toy import SquareSettings, last_digits, numbers, squares, total, tree

ROOT = Path(__file__).resolve().parents[3]


@pytest.fixture(scope="module")
def alone(run_phases: Run, tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """Tables of the same phases on one node."""
    out = tmp_path_factory.mktemp("alone")
    last = last_digits(SquareSettings(plus=1))
    run_phases(out, numbers(COUNT), squares(SquareSettings()), last, total(), cpus=4.0)
    return tree(out)


def test_four_nodes_share_the_work_and_one_that_dies_costs_what_it_had_not_stored(
    alone: dict[str, bytes], tmp_path: Path
) -> None:
    out, log = tmp_path / "out", tmp_path / "log"
    call = f"from tests.pipeline.engine.four_nodes import main; main({str(out)!r}, {str(log)!r})"
    kept = {name: value for name, value in os.environ.items() if not name.startswith("RAY_AUTH")}
    ran = subprocess.run([sys.executable, "-c", call], cwd=ROOT, env=kept, capture_output=True, text=True, timeout=280)
    assert ran.returncode == 0 and "killed" in ran.stdout, ran.stdout + ran.stderr
    assert tree(out) == alone
    lines = [line.split() for line in log.read_text().splitlines()]
    first, second = ([(node, number) for node, phase, number in lines if phase == mine] for mine in "01")
    shares = Counter(node for node, _ in first)
    assert len({number for _, number in first}) == len(first) == COUNT
    assert len(shares) == 4 and min(shares.values()) >= COUNT / 10
    # All that the dead node computed may have to be computed again, and a batch of each other one.
    again = len(second) - len({number for _, number in second})
    assert len({number for _, number in second}) == COUNT
    assert 0 < again <= min(Counter(node for node, _ in second).values()) + 3 * SlowSquare.batch_size
