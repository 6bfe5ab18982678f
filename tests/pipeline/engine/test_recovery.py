"""Damage that a build meets: made again where it can be, in one line where it cannot; never a fact about a row."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from pipeline.engine.damage import Damaged
from pipeline.engine.phase import Part, Phase, Step
from pipeline.engine.recovery import run_phases
from pipeline.engine.runner import Runner
from schemas.contract import contract
from schemas.page import LOCATOR
from tests.pipeline.conftest import Run
from tests.pipeline.toy import NUMBER, Square, SquareSettings, numbers

BODIES = contract(
    "bodies",
    1,
    [
        pa.field("id", pa.string(), nullable=False),
        pa.field("inside", pa.list_(pa.struct([pa.field("body", LOCATOR)]))),
    ],
    key="id",
)


class FetchedSquare(Square):
    """A row function whose rows stand where fetched ones do."""

    name = "fetch_page"


def bodies(function: Square) -> Phase:
    """numbers -> bodies: each number's bytes, as a locator deep in a column."""

    square = Step(function, lambda part: part.read("numbers"), owner="id", key=("n",), table="numbers")

    def run(part: Part, _: pa.Table | None) -> pa.Table:
        rows, answers = part.answers(square)
        found = answers.column("body").to_pylist()
        inside = pa.array([[{"body": body}] for body in found], BODIES.field("inside").type)
        return pa.table({"id": rows.column("id"), "inside": inside})

    return Phase(name="bodies", schema=BODIES, run=run, inputs=("numbers",), steps=(square,))


def read_back() -> Phase:
    """bodies -> what their bytes say."""

    def run(part: Part, _: pa.Table | None) -> pa.Table:
        rows = part.read("bodies")
        column = rows.column("inside").combine_chunks().flatten().field("body")
        said = [int(body or b"-1") for body in part.blobs(column)]
        return pa.table({"id": rows.column("id"), "n": pa.array(said, pa.int64())})

    return Phase(name="read_back", schema=NUMBER, run=run, inputs=("bodies",))


def build(runner: Runner, *phases: Phase) -> None:
    run_phases(runner, phases, lambda phase: None)


def values(runner: Runner) -> list[int]:
    """What the bytes said, sorted."""
    return sorted(row["n"] for part in runner.table("read_back").read_all() for row in part.to_pylist())


SQUARES = [n * n for n in range(40)]


def flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-1])


def newest(out: Path, pattern: str) -> Path:
    return sorted(out.glob(pattern))[-1]


@pytest.mark.parametrize("spoil", [flip, cut, Path.unlink])
@pytest.mark.parametrize("pattern", ["rows/square/*/*/*.pack", "tables/bodies/parts/*", "tables/bodies/*/*.json"])
def test_what_a_build_made_it_makes_again(
    run_phases_once: Callable[[Path], Runner], tmp_path: Path, spoil: Callable[[Path], Any], pattern: str
) -> None:
    phases = (numbers(40), bodies(Square(SquareSettings())), read_back())
    build(run_phases_once(tmp_path), *phases[:2])
    spoil(newest(tmp_path, pattern))
    runner = run_phases_once(tmp_path)
    build(runner, *phases)
    assert values(runner) == SQUARES


def test_a_folder_that_was_removed_under_a_build_is_filled_again(
    run_phases_once: Callable[[Path], Runner], tmp_path: Path
) -> None:
    phases = (numbers(40), bodies(Square(SquareSettings())), read_back())
    build(run_phases_once(tmp_path), *phases[:2])
    shutil.rmtree(tmp_path / "rows")
    shutil.rmtree(tmp_path / "tables" / "numbers")
    runner = run_phases_once(tmp_path)
    build(runner, *phases)
    assert values(runner) == SQUARES


@pytest.mark.parametrize("spoil", [flip, cut, Path.unlink])
def test_what_was_fetched_is_damaged_in_one_line_and_right_when_it_is_back(
    run_phases_once: Callable[[Path], Runner], tmp_path: Path, spoil: Callable[[Path], Any]
) -> None:
    fetched = bodies(FetchedSquare(SquareSettings()))
    phases = (numbers(40), fetched, read_back())
    build(run_phases_once(tmp_path), *phases[:2])
    pack = newest(tmp_path, "rows/fetch_page/*/*/*.pack")
    whole = pack.read_bytes()
    spoil(pack)
    for _ in range(2):
        with pytest.raises(Damaged, match=r"^rows/fetch_page/\S+\.pack is damaged: .*put it back from a copy"):
            build(run_phases_once(tmp_path), *phases)
    pack.write_bytes(whole)
    runner = run_phases_once(tmp_path)
    build(runner, *phases)
    assert values(runner) == SQUARES


def test_damage_that_comes_back_is_told(run_phases: Run, tmp_path: Path) -> None:
    def spoiled(part: Part, rows: pa.Table | None) -> pa.Table:
        flip(newest(tmp_path, "rows/square/*/*/*.pack"))
        inner: pa.Table = read_back().run(part, rows)
        return inner

    with pytest.raises(Damaged, match="holds other bytes than were written"):
        build(
            run_phases(tmp_path),
            numbers(3),
            bodies(Square(SquareSettings())),
            replace(read_back(), run=spoiled, whole=True),
        )


@pytest.fixture
def run_phases_once(run_phases: Run) -> Callable[[Path], Runner]:
    """A runner over a folder, with no phase run yet."""
    return lambda out: run_phases(out)
