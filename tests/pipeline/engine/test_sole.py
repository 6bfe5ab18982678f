"""One worker that does small phases by itself: the same tables as plans make, whatever it meets."""

from __future__ import annotations

import os
import re
import signal
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pytest

from pipeline.engine import runner as runner_module
from pipeline.engine.plans import exchanged
from pipeline.engine.recovery import line_for_people
from pipeline.engine.resources import OperatorSettings, Resources
from pipeline.engine.runner import PhaseFailed, Runner
from tests.pipeline.conftest import Run
from tests.pipeline.engine.test_outside import brought
from tests.pipeline.toy import SquareSettings, last_digits, numbers, squares, total

PHASES = (numbers(95), squares(SquareSettings()), last_digits(SquareSettings(), actors=True), total())


@pytest.fixture
def no_plans(monkeypatch: pytest.MonkeyPatch) -> None:
    """A test in which a plan of Ray Data is an error."""

    def refuse(*arguments: Any) -> Any:
        raise AssertionError("a plan, where one worker was to do it")

    for name in ("assembled", "exchanged", "stream", "warmed", "brought"):
        monkeypatch.setattr(runner_module, name, refuse)


def contents(runner: Runner) -> dict[str, tuple[str, list[Any]]]:
    """Digest and rows of every table."""
    return {
        name: (record.digest, [row for part in runner.table(name).read_all() for row in part.to_pylist()])
        for name, record in runner.records.items()
    }


def test_it_makes_what_plans_make(
    run_phases: Run, tmp_path: Path, no_plans: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    alone = run_phases(tmp_path / "alone", *PHASES, small_rows=95)
    said = alone.records["last_digits"].run["models"]["square"]
    assert (said["rows"], said["actors"]) == (95, 1) and 0 < said["busy"] <= 1
    # A row function is asked about the rows of the exchange of last_digits.
    assert {name: len(alone.table(name).parts) for name in ("squares", "last_digits")} == {
        "squares": 1,
        "last_digits": 4,
    }
    monkeypatch.undo()
    spread = run_phases(tmp_path / "spread", *PHASES)
    assert contents(alone) == contents(spread)
    assert {name: record.key for name, record in alone.records.items()} == {
        name: record.key for name, record in spread.records.items()
    }
    assert len(spread.table("squares").parts) == 4


def test_it_goes_on_where_plans_stopped(run_phases: Run, tmp_path: Path) -> None:
    spread = run_phases(tmp_path, numbers(95), squares(SquareSettings()))
    (tmp_path / spread.table("squares").record_name).unlink()
    sorted((tmp_path / "work" / "squares").glob("*/*.json"))[2].unlink()
    again = run_phases(tmp_path, numbers(95), squares(SquareSettings()), small_rows=95)
    assert again.records["squares"].run["ranges_resumed"] == 3
    assert contents(again) == contents(spread)


def test_rows_are_few_or_plans_take_them(run_phases: Run, tmp_path: Path) -> None:
    runner = run_phases(tmp_path, *PHASES, small_rows=94)
    assert {name: len(runner.table(name).parts) for name in ("squares", "last_digits")} == {
        "squares": 4,
        "last_digits": 4,
    }
    model, plain = squares(SquareSettings(), actors=True), squares(SquareSettings())
    for resources, phase, small in [
        (Resources(2.0, 0.0, small_rows=95), model, True),
        (Resources(2.0, 1.0, small_rows=95), model, False),
        (Resources(2.0, 1.0, small_rows=95), plain, True),
        (Resources(2.0, 1.0, small_rows=95), replace(plain, gpu=True), False),
        (Resources(2.0, 0.0, {"square": OperatorSettings(batch_size=3)}, small_rows=95), plain, True),
        (Resources(2.0, 0.0, {"square": OperatorSettings(cpus=2)}, small_rows=95), plain, False),
        (Resources(2.0, 0.0), replace(plain, inputs=()), False),
    ]:
        runner.resources = resources
        assert runner._is_small(phase, None) == small, (resources, phase)


def test_many_rows_of_an_exchange_are_spread(run_phases: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """However few those are that it was made of."""
    planned: list[str] = []

    def noted(work: Any, *arguments: Any) -> Any:
        planned.append(work.phase.name)
        return exchanged(work, *arguments)

    monkeypatch.setattr(runner_module, "exchanged", noted)

    def emit(part: Any, unit: Any) -> pa.Table:
        rows = last_digits().exchange.emit(part, unit)  # type: ignore[union-attr]  # it has one
        return pa.concat_tables([rows.set_column(1, "n", pc.add(rows.column("n"), 1000 * n)) for n in range(3)])

    many = last_digits(SquareSettings())
    assert many.exchange is not None
    many = replace(many, exchange=replace(many.exchange, emit=emit))
    alone = run_phases(tmp_path / "alone", numbers(40), squares(SquareSettings()), many, small_rows=120)
    assert not planned
    spread = run_phases(tmp_path / "spread", numbers(40), squares(SquareSettings()), many, small_rows=119)
    assert contents(alone) == contents(spread)
    assert planned == ["last_digits"] and len(spread.table("squares").parts) == 1


def test_a_row_that_kills_it_ends_as_a_quarantine_row(run_phases: Run, tmp_path: Path, no_plans: None) -> None:
    runner = run_phases(tmp_path, numbers(30), squares(SquareSettings(kills=(7,))), small_rows=95)
    (decided,) = [row for table in runner.table("squares").decisions() for row in table.to_pylist()]
    assert decided["action"] == "quarantine" and "square ended its process (signal 9)" in decided["detail"]
    assert (runner.records["squares"].rows, runner.records["squares"].run["tries"]) == (29, 3)


def test_a_phase_whose_own_code_dies_gives_up_with_one_line(run_phases: Run, tmp_path: Path, no_plans: None) -> None:
    doomed = replace(numbers(10), run=lambda part, rows: os.kill(os.getpid(), signal.SIGKILL))
    with pytest.raises(PhaseFailed, match="numbers: workers died 4 times without progress"):
        run_phases(tmp_path, doomed, small_rows=95)


def test_a_function_that_cannot_run_stops_the_build(run_phases: Run, tmp_path: Path, no_plans: None) -> None:
    with pytest.raises(Exception) as raised:
        run_phases(tmp_path, numbers(30), squares(SquareSettings(cannot_run=True), actors=True), small_rows=95)
    assert line_for_people(raised.value) == "square: no such device here"


@pytest.mark.parametrize("dies_at", [None, 17])
def test_it_runs_an_errand(run_phases: Run, tmp_path: Path, no_plans: None, dies_at: int | None) -> None:
    runner = run_phases(tmp_path / "out", brought(tmp_path / "there", dies_at), small_rows=95)
    assert runner.records["numbers"].run["tries"] == (1 if dies_at is None else 2)
    facts = [(tmp_path / "there" / str(number)).read_text() for number in range(40)]
    assert set(facts) == {'{"concurrency": 64}'}, "all that may be in flight is its own"


def test_code_that_comes_to_the_same_takes_its_rows_over(
    run_phases: Run, tmp_path: Path, no_plans: None, capsys: pytest.CaptureFixture[str]
) -> None:
    class Moved(type(squares(SquareSettings()).steps[0].function)):  # type: ignore[misc]
        """The same function out of another module."""

    log = tmp_path / "log"
    settings = SquareSettings(log=str(log))
    run_phases(tmp_path / "out", numbers(90), squares(settings), small_rows=95)
    log.unlink()
    run_phases(tmp_path / "out", numbers(90), squares(settings, kind=Moved), sample=40, small_rows=95)
    assert re.search(r": 40 of its rows come out the same, all are kept", capsys.readouterr().err)
    assert len(log.read_text().split()) == 40


def test_a_table_of_no_rows(run_phases: Run, tmp_path: Path, no_plans: None) -> None:
    empty = replace(numbers(10), run=lambda part, rows: pa.Table.from_pylist([], schema=rows.schema))
    runner = run_phases(tmp_path, empty, squares(SquareSettings()), last_digits(), total(), small_rows=95)
    assert [record.rows for record in runner.records.values()] == [0, 0, 0, 0]
