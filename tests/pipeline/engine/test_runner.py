"""The runner: finished tables, remembered rows, other layouts, dying workers."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pytest
import ray.data
from ray.data._internal.logical.optimizers import get_execution_plan
from ray.data.context import DataContext

from pipeline.engine.damage import Damaged
from pipeline.engine.key_range import evenly
from pipeline.engine.memo import compute_isolated
from pipeline.engine.plans import MODEL_BLOCK_BYTES, assembled, configure_ray_data, exchanged, stream, warmed
from pipeline.engine.recovery import line_for_people
from pipeline.engine.resources import RETRIES, OperatorSettings, Resources
from pipeline.engine.runner import PhaseFailed
from pipeline.engine.storage import Storage
from pipeline.engine.table import finished
from pipeline.engine.work_folder import WorkFolder
from pipeline.phases.graph import graph
from pipeline.spec.loading import load
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
    assert runner.records["numbers"].counts == {"numbers": 95}


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
    assert runner.records["squares"].run["rows_remembered"] == 20


def test_other_worker_layouts_give_the_same_bytes(run_phases: Run, plain: Path, tmp_path: Path) -> None:
    run_phases(tmp_path, numbers(95), squares(SquareSettings(), actors=True), last_digits(), total())
    assert tree(tmp_path) == tree(plain)


def test_rows_that_raise_are_decisions_and_cost_no_neighbour(run_phases: Run, tmp_path: Path) -> None:
    runner = run_phases(tmp_path, numbers(30), squares(SquareSettings(raises=(3, 20))))
    decided = [row for table in runner.table("squares").decisions() for row in table.to_pylist()]
    assert sorted(row["detail"] for row in decided) == ["ValueError: 20 is not liked", "ValueError: 3 is not liked"]
    assert runner.records["squares"].rows == 28


@pytest.mark.parametrize("actors", [False, True])
def test_a_row_that_kills_its_worker_ends_as_a_quarantine_row(run_phases: Run, tmp_path: Path, actors: bool) -> None:
    runner = run_phases(tmp_path, numbers(30), squares(SquareSettings(kills=(7,)), actors=actors))
    (decided,) = [row for table in runner.table("squares").decisions() for row in table.to_pylist()]
    assert decided["action"] == "quarantine" and "square ended its process (signal 9)" in decided["detail"]
    assert runner.records["squares"].rows == 29
    # Two plain tries without progress, then one in isolation; a neighbour's finished part starts the count again.
    assert 3 <= runner.records["squares"].run["tries"] <= 3 + 4


def test_a_phase_whose_own_code_dies_gives_up_with_one_line(run_phases: Run, tmp_path: Path) -> None:
    import os
    import signal

    doomed = replace(numbers(10), run=lambda part, rows: os.kill(os.getpid(), signal.SIGKILL))
    with pytest.raises(PhaseFailed, match="numbers: workers died 4 times without progress"):
        run_phases(tmp_path, doomed)


def test_a_changed_part_is_found_out(run_phases: Run, tmp_path: Path) -> None:
    runner = run_phases(tmp_path, numbers(20))
    part = tmp_path / runner.table("numbers").parts[0].name
    data = bytearray(part.read_bytes())
    data[len(data) // 2] ^= 1
    part.write_bytes(bytes(data))
    with pytest.raises(Damaged, match="holds other bytes than were written"):
        list(runner.table("numbers").read_all())


def test_a_finished_part_is_not_made_again(run_phases: Run, plain: Path, tmp_path: Path) -> None:
    """As after a kill between ranges: three receipts are there, one and the record are not."""
    runner = run_phases(tmp_path, numbers(95))
    table = runner.table("numbers")
    (tmp_path / table.record_name).unlink()
    sorted((tmp_path / "work" / "numbers").glob("*/*.json"))[2].unlink()
    before = {part.name: (tmp_path / part.name).stat().st_mtime_ns for part in table.parts}
    runner = run_phases(tmp_path, numbers(95))
    after = {part.name: (tmp_path / part.name).stat().st_mtime_ns for part in table.parts}
    assert [name for name in after if after[name] != before[name]] == [table.parts[2].name]
    assert runner.records["numbers"].run["ranges_resumed"] == 3
    assert {k: v for k, v in tree(plain).items() if "/numbers/" in k} == tree(tmp_path)


def test_other_processors_go_on_where_fewer_were_killed(run_phases: Run, plain: Path, tmp_path: Path) -> None:
    runner = run_phases(tmp_path, numbers(95), squares(SquareSettings()))
    (tmp_path / runner.table("squares").record_name).unlink()
    for receipt in sorted((tmp_path / "work" / "squares").glob("*/*.json"))[1:]:
        receipt.unlink()
    again = run_phases(tmp_path, numbers(95), squares(SquareSettings()), last_digits(), total(), cpus=13.0)
    assert len(again.table("squares").parts) == 1 + 24
    assert again.records["squares"].run["ranges_resumed"] == 1
    undisturbed = run_phases(plain, numbers(95), squares(SquareSettings()), last_digits(), total())
    for phase, record in undisturbed.records.items():
        assert (again.records[phase].key, again.records[phase].digest) == (record.key, record.digest)
    assert [part.to_pylist() for part in again.table("total").read_all()] == [
        part.to_pylist() for part in undisturbed.table("total").read_all()
    ]


def test_nothing_follows_a_change_that_changes_nothing(run_phases: Run, tmp_path: Path) -> None:
    """Early cutoff: what comes out the same is the same, whatever made it, and how its carried columns differ."""
    first = run_phases(tmp_path, numbers(30), squares(SquareSettings()), last_digits())
    loud = squares(SquareSettings(log=str(tmp_path / "log")))
    second = run_phases(tmp_path, numbers(30), loud, last_digits())
    assert first.records["squares"].key != second.records["squares"].key
    assert len((tmp_path / "log").read_text().split()) == 30
    assert first.records["last_digits"] == second.records["last_digits"]


class Moved(Square):
    """The same function out of another module."""


class Mended(Square):
    """Comes to something else for one number."""

    def __call__(self, rows: pa.Table) -> pa.Table:
        numbers = pc.if_else(pc.equal(rows.column("n"), 40), 0, rows.column("n"))
        return super().__call__(rows.set_column(rows.schema.get_field_index("n"), "n", numbers))


def test_other_code_that_comes_to_the_same_takes_its_rows_over(
    run_phases: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    log = tmp_path / "log"
    settings = SquareSettings(log=str(log))
    first = run_phases(tmp_path / "out", numbers(90), squares(settings), last_digits())
    log.unlink()
    moved = (numbers(90), squares(settings, kind=Moved), last_digits())
    second = run_phases(tmp_path / "out", *moved, sample=40)
    assert ": 40 of its rows come out the same, all are kept" in capsys.readouterr().err
    assert len(log.read_text().split()) == 40
    assert second.records["squares"].key != first.records["squares"].key
    assert second.records["last_digits"] == first.records["last_digits"]
    # A build after it finds the rows by the link alone, also next to rows that are new.
    run_phases(tmp_path / "out", numbers(95), squares(settings, kind=Moved), sample=40)
    assert len(log.read_text().split()) == 45


def test_other_code_that_comes_to_something_else_makes_its_rows_again(
    run_phases: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    log = tmp_path / "log"
    settings = SquareSettings(log=str(log))
    run_phases(tmp_path / "out", numbers(90), squares(settings))
    log.unlink()
    second = run_phases(tmp_path / "out", numbers(90), squares(settings, kind=Mended), sample=89)
    said = re.search(r": 1 of (8\d) rows come out otherwise, all are made again", capsys.readouterr().err)
    assert said and len(log.read_text().split()) == int(said[1]) + 90
    found = {row["n"]: row["square"] for part in second.table("squares").read_all() for row in part.to_pylist()}
    assert found == {n: n * n if n != 40 else 0 for n in range(90)}


def test_what_failed_is_asked_for_again_where_it_failed(run_phases: Run, tmp_path: Path) -> None:
    phases = numbers(30), squares(SquareSettings(raises=(3,)))
    record = run_phases(tmp_path, *phases).records["squares"]
    assert finished(Storage(str(tmp_path)), "squares", record.key, 1) == record
    work = sorted((tmp_path / "work" / "squares").glob("*/*.json"))
    said = json.loads(work[0].read_text())
    work[0].write_text(json.dumps(said | {"counts": {"retryable": 1}}))
    path = tmp_path / f"records/squares/{record.key}/00000.json"
    path.write_text(replace(record, counts={"retryable": 1}).to_json())
    assert finished(Storage(str(tmp_path)), "squares", record.key, 0) is not None
    assert finished(Storage(str(tmp_path)), "squares", record.key, 1) is None
    held = WorkFolder(Storage(str(tmp_path)), "squares", record.key)
    assert [len(held.receipts(generation)) for generation in (0, 1)] == [4, 3]
    # Of a crawl, whose pages are found by links, none holds: what is asked for again may lead anywhere.
    crawl = WorkFolder(Storage(str(tmp_path)), "squares", record.key, together=True)
    assert [len(crawl.receipts(generation)) for generation in (0, 1)] == [4, 0]


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


@pytest.mark.parametrize(("whole", "actors"), [(False, False), (False, True), (True, False)])
def test_a_range_of_any_size_is_made_from_all_its_rows(
    run_phases: Run, tmp_path: Path, whole: bool, actors: bool
) -> None:
    """Ray Data splits large blocks, but never what its sort has gathered."""
    phases = (numbers(95), squares(SquareSettings()))
    run_phases(tmp_path / "large", *phases, replace(last_digits(SquareSettings()), whole=whole))
    with small_blocks():
        runner = run_phases(tmp_path / "small", *phases, replace(last_digits(SquareSettings(), actors), whole=whole))
    assert tree(tmp_path / "small") == tree(tmp_path / "large")
    sums = {row["sum"] for part in runner.table("last_digits").read_all() for row in part.to_pylist()}
    assert sums == {sum(n**4 for n in range(digit, 95, 10)) for digit in range(10)}
    # What a model was at, and for how long, is in the record.
    said = runner.records["last_digits"].run["models"].get("square")
    assert (said is None) if not actors else (said["rows"] == 95 and said["actors"] in (1, 2) and 0 < said["busy"] <= 1)


def test_a_function_that_cannot_run_stops_the_build_and_blames_no_row(run_phases: Run, tmp_path: Path) -> None:
    phases = (numbers(30), squares(SquareSettings(cannot_run=True), actors=True))
    with pytest.raises(Exception) as raised:
        run_phases(tmp_path, *phases)
    assert line_for_people(raised.value) == "square: no such device here"
    assert not list(tmp_path.glob("work/squares/*/*")) and not list(tmp_path.glob("rows/square/*/*"))
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
    resources = Resources(2.0, gpus)
    asked = {phase.name: resources.task(phase.name, gpu=phase.gpu).get("num_gpus") for phase in graph(load("demo"))}
    assert resources.pool("embed_image")["num_gpus"] == encoder
    assert asked.pop("negatives") == miner and set(asked.values()) == {None}


def test_a_spec_says_what_an_operator_takes() -> None:
    given = {"extract": {"cpus": 0.5, "memory_megabytes": 700}, "embed_image": {"gpus": 0.25, "max_workers": 6}}
    overrides = [f"resources.operators={json.dumps(given)}", "resources.encoder_workers=3"]
    operators = load("demo", overrides).resources.of_operators()
    resources = Resources(8.0, 2.0, operators)
    assert resources.task("extract") == {"max_retries": RETRIES, "num_cpus": 0.5, "memory": 700_000_000}
    assert resources.task("decode_image") == {"max_retries": RETRIES}
    pools = [resources.pool(name)["compute"] for name in ("embed_image", "embed_sentence")]
    assert [(pool.min_size, pool.max_size) for pool in pools] == [(6, 6), (3, 3)]


@pytest.mark.parametrize(("cpus", "workers"), [(1.0, None), (1.0, 4), (2.0, None), (2.0, 4), (64.0, None)])
def test_actors_leave_a_cpu_to_what_feeds_them(cpus: float, workers: int | None) -> None:
    operators = {"embed_image": OperatorSettings(min_workers=workers, max_workers=workers)}
    pool = Resources(cpus, 0.0, operators).pool("embed_image")
    assert pool["compute"].max_size == (workers or cpus) and pool["compute"].max_size * pool["num_cpus"] <= cpus - 1


@pytest.mark.parametrize(("members", "ranges", "share"), [(2, 4, 2), (2, 5, 3), (1, 4, 4), (4, 1, 1), (2, 512, 16)])
def test_no_actor_of_an_errand_takes_more_than_its_share(members: int, ranges: int, share: int) -> None:
    pool = Resources(4.0, 0.0).errand("fetch_image", members, ranges)["compute"]
    assert pool.max_tasks_in_flight_per_actor == share, "the first to start would have it all"


def operators_of(dataset: ray.data.Dataset) -> list[str]:
    """The physical operators behind a dataset's input, in order, as Ray runs them."""
    operator, names = get_execution_plan(dataset._logical_plan)[0].dag, []
    while operator.input_dependencies:
        names.append(f"{type(operator).__name__} {operator.name}")
        operator = operator.input_dependencies[0]
    return names[::-1]


def test_the_plans_are_what_ray_runs(run_phases: Run, tmp_path: Path) -> None:
    """Rows stream: what needs no model is one task with its reader; a model stands between what feeds it and what keeps
    what it makes."""
    runner = run_phases(tmp_path, numbers(40), squares(SquareSettings()))
    plain, held = squares(SquareSettings()), squares(SquareSettings(), actors=True)
    work = runner._work(plain, "key", evenly(4), isolate=False)
    read = stream(work, plain.steps[0])
    table = runner.table("numbers")
    assert read is not None
    schema = table.rows_of(table.parts[0]).schema
    assert read.schema().base_schema == schema and read.count() == runner.records["numbers"].rows == 40
    assert operators_of(read) == ["TaskPoolMapOperator ReadTable(numbers)"]
    assert operators_of(warmed(work, plain.steps[0], read, runner.resources)) == [
        "TaskPoolMapOperator ReadTable(numbers)->MapBatches(square.ask)->MapBatches(square)"
    ]
    assert operators_of(warmed(work, held.steps[0], read, runner.resources)) == [
        "TaskPoolMapOperator ReadTable(numbers)->MapBatches(square.ask)",
        "ActorPoolMapOperator MapBatches(square)",
        "TaskPoolMapOperator MapBatches(square.keep)",
    ]
    met = exchanged(runner._work(last_digits(), "key", evenly(4), isolate=False), evenly(4), runner.resources)
    made = operators_of(assembled(work, [], met, runner.resources))
    assert [name.split()[1] for name in made] == ["MapBatches(last_digits.rows)", "Sort", "MapBatches(squares)"]
    assert operators_of(assembled(work, [0, 2], None, runner.resources)) == ["TaskPoolMapOperator MapBatches(squares)"]
    assert DataContext.get_current().target_max_block_size != MODEL_BLOCK_BYTES
