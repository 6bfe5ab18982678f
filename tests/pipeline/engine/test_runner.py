"""The runner: finished tables, remembered rows, other layouts, dying workers."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
import ray.data
from ray.data.context import DataContext

from pipeline.engine.damage import Damaged
from pipeline.engine.memo import compute_isolated
from pipeline.engine.recovery import line_for_people
from pipeline.engine.runner import PhaseFailed, Runner, configure_ray_data
from stages.row_function import CannotRun
from tests.pipeline.conftest import Run
from tests.pipeline.toy import Square, SquareSettings, last_digits, numbers, squares, total, tree


@pytest.fixture(scope="module")
def plain(run_phases: Run, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An undisturbed run."""
    out = tmp_path_factory.mktemp("plain")
    run_phases(out, numbers(95), squares(SquareSettings()), last_digits(), total())
    return out


def test_the_tables_are_right(plain: Path, run_phases: Run) -> None:
    runner = run_phases(plain, numbers(95), squares(SquareSettings()), last_digits(), total())
    found = {row["n"]: row["square"] for part in runner.table("squares").read_all() for row in part.to_pylist()}
    assert found == {n: n * n for n in range(95)}
    sums = sorted(row["n"] for part in runner.table("total").read_all() for row in part.to_pylist())
    assert sums == sorted(sum(n * n for n in range(d, 95, 10)) for d in range(10))
    assert runner.manifests["numbers"].counts == {"numbers": 95}


def test_a_finished_phase_is_not_run_again(run_phases: Run, tmp_path: Path) -> None:
    log = tmp_path / "log"
    phases = (numbers(20), squares(SquareSettings(log=str(log))))
    run_phases(tmp_path / "out", *phases)
    first = tree(tmp_path / "out")
    run_phases(tmp_path / "out", *phases)
    assert sorted(map(int, log.read_text().split())) == list(range(20))
    assert tree(tmp_path / "out") == first


def test_rows_are_remembered_when_the_phase_runs_again(run_phases: Run, tmp_path: Path) -> None:
    log = tmp_path / "log"
    run_phases(tmp_path / "out", numbers(20), squares(SquareSettings(log=str(log))))
    runner = run_phases(tmp_path / "out", numbers(25), squares(SquareSettings(log=str(log))))
    assert sorted(map(int, log.read_text().split())) == list(range(25))
    assert runner.manifests["squares"].run["rows_remembered"] == 20


def test_other_worker_layouts_give_the_same_bytes(run_phases: Run, plain: Path, tmp_path: Path) -> None:
    run_phases(tmp_path, numbers(95), squares(SquareSettings(), actors=True), last_digits(), total())
    assert tree(tmp_path) == tree(plain)


def test_rows_that_raise_are_decisions_and_cost_no_neighbour(run_phases: Run, tmp_path: Path) -> None:
    runner = run_phases(tmp_path, numbers(30), squares(SquareSettings(raises=(3, 20))))
    decided = [row for table in runner.table("squares").decisions() for row in table.to_pylist()]
    assert sorted(row["detail"] for row in decided) == ["ValueError: 20 is not liked", "ValueError: 3 is not liked"]
    assert sum(part.rows for part in runner.manifests["squares"].parts) == 28


@pytest.mark.parametrize("actors", [False, True])
def test_a_row_that_kills_its_worker_ends_as_a_quarantine_row(run_phases: Run, tmp_path: Path, actors: bool) -> None:
    runner = run_phases(tmp_path, numbers(30), squares(SquareSettings(kills=(7,)), actors=actors))
    (decided,) = [row for table in runner.table("squares").decisions() for row in table.to_pylist()]
    assert decided["action"] == "quarantine" and "square ended its process (signal 9)" in decided["detail"]
    assert sum(part.rows for part in runner.manifests["squares"].parts) == 29
    # Two plain tries without progress, then one in isolation; a neighbour's finished part starts the count again.
    assert 3 <= runner.manifests["squares"].run["tries"] <= 3 + 4


def test_a_phase_whose_own_code_dies_gives_up_with_one_line(run_phases: Run, tmp_path: Path) -> None:
    import os
    import signal

    doomed = replace(numbers(10), run=lambda part, rows: os.kill(os.getpid(), signal.SIGKILL))
    with pytest.raises(PhaseFailed, match="numbers: workers died 4 times without progress"):
        run_phases(tmp_path, doomed)


def test_a_changed_part_is_found_out(run_phases: Run, tmp_path: Path) -> None:
    runner = run_phases(tmp_path, numbers(20))
    part = next((tmp_path / runner.table("numbers").folder).glob("part-*.parquet"))
    data = bytearray(part.read_bytes())
    data[len(data) // 2] ^= 1
    part.write_bytes(bytes(data))
    with pytest.raises(Damaged, match="holds other bytes than were written"):
        list(runner.table("numbers").read_all())


def test_a_finished_part_is_not_made_again(run_phases: Run, plain: Path, tmp_path: Path) -> None:
    """As after a kill between parts: three receipts are there, one and the manifest are not."""
    runner = run_phases(tmp_path, numbers(95))
    folder = tmp_path / runner.table("numbers").folder
    (folder / "manifest.json").unlink()
    (folder / "receipt-00002.json").unlink()
    before = {path.name: path.stat().st_mtime_ns for path in folder.glob("part-*")}
    runner = run_phases(tmp_path, numbers(95))
    after = {path.name: path.stat().st_mtime_ns for path in folder.glob("part-*")}
    assert [name for name in after if after[name] != before[name]] == ["part-00002.parquet"]
    assert runner.manifests["numbers"].run["parts_resumed"] == 3
    assert {k: v for k, v in tree(plain).items() if "/numbers/" in k} == tree(tmp_path)


@contextmanager
def small_blocks() -> Iterator[None]:
    """Ray Data splits what a task makes into blocks of few rows."""
    context = DataContext.get_current()
    before = context.target_max_block_size
    configure_ray_data(block_megabytes=200 / (1 << 20))
    try:
        made = ray.data.range(100, override_num_blocks=1).map_batches(lambda batch: batch, batch_size=None)
        assert made.materialize().num_blocks() > 1
        yield
    finally:
        context.target_max_block_size = before


@pytest.mark.parametrize(("partitions", "actors"), [(4, False), (4, True), (1, False)])
def test_a_partition_of_any_size_is_made_from_all_its_rows(
    run_phases: Run, tmp_path: Path, partitions: int, actors: bool
) -> None:
    """Ray Data splits large blocks, but never what its sort has gathered."""
    phases = (numbers(95), squares(SquareSettings()))
    run_phases(tmp_path / "large", *phases, last_digits(), partitions=partitions)
    with small_blocks():
        run_phases(tmp_path / "small", *phases, replace(last_digits(), actors=actors), partitions=partitions)
    assert tree(tmp_path / "small") == tree(tmp_path / "large")


def test_a_function_that_cannot_run_stops_the_build_and_blames_no_row(run_phases: Run, tmp_path: Path) -> None:
    phases = (numbers(30), squares(SquareSettings(cannot_run=True), actors=True))
    with pytest.raises(Exception) as raised:
        run_phases(tmp_path, *phases)
    assert line_for_people(raised.value) == "square: no such device here"
    assert not list(tmp_path.glob("tables/squares/*/receipt-*")) and not list(tmp_path.glob("rows/square/*/*"))
    with pytest.raises(CannotRun, match=r"^square: no such device here$"):
        compute_isolated(Square(SquareSettings(cannot_run=True)), pa.table({"n": [1, 2]}))


def test_a_task_that_asked_for_no_gpu_sees_none(run_phases: Run, tmp_path: Path) -> None:
    import os

    def run(part: Any, rows: pa.Table | None) -> pa.Table:
        assert os.environ["CUDA_VISIBLE_DEVICES"] == ""
        made: pa.Table = rows
        return made

    run_phases(tmp_path, replace(numbers(10), run=run))


@pytest.mark.parametrize(("gpus", "encoder", "miner"), [(0.0, 0, None), (0.5, 0.5, 0.5), (2.0, 1.0, 1.0)])
def test_encoders_and_mining_ask_for_a_gpu_where_there_is_one(gpus: float, encoder: float, miner: float | None) -> None:
    from pipeline.engine.progress import Progress
    from pipeline.engine.runner import Resources
    from pipeline.engine.storage import Storage
    from pipeline.phases.graph import graph
    from pipeline.spec.loading import load

    runner = Runner(Storage("/nowhere"), 1, Resources(2.0, gpus), Progress(lambda phase: [0, 0, 0]), None)
    asked = {phase.name: runner._share(phase).get("num_gpus") for phase in graph(load("demo"), 0)}
    assert runner._pool()["num_gpus"] == encoder
    assert asked.pop("negatives") == miner and set(asked.values()) == {None}
