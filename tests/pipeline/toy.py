"""Small phases over made-up rows, for tests of the runner: no page, no model, every mechanism."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import Any

import pyarrow as pa

from pipeline.engine.keys import digest
from pipeline.engine.phase import Exchange, Part, Phase, Step
from schemas.contract import contract
from stages.row_function import ERROR, CannotRun, Limits, Settings

NUMBER = contract("number", 1, [pa.field("id", pa.string(), nullable=False), pa.field("n", pa.int64())], key="id")
SQUARE = contract(
    "square",
    1,
    [pa.field("id", pa.string(), nullable=False), pa.field("n", pa.int64()), pa.field("square", pa.int64())],
    key="id",
)
LAST_DIGIT = contract(
    "last_digit",
    1,
    [pa.field("digit", pa.string(), nullable=False), pa.field("n", pa.list_(pa.int64())), pa.field("sum", pa.int64())],
    key="digit",
)


class SquareSettings(Settings):
    """Of the toy row function."""

    plus: int = 0
    """Added to every square."""
    raises: tuple[int, ...] = ()
    """Numbers for which the function raises."""
    kills: tuple[int, ...] = ()
    """Numbers for which it ends its process."""
    cannot_run: bool = False
    """Whether it finds out that it cannot run here."""
    log: str | None = None
    """File that gets a line for every number computed."""


class Square:
    """n -> n * n + plus."""

    name = "square"
    libraries = ("pyarrow",)
    weights = None
    limits: Limits | None = None
    batch_size = 7
    output = pa.schema([pa.field("square", pa.int64()), pa.field("body", pa.large_binary()), ERROR])

    def __init__(self, settings: SquareSettings) -> None:
        self.settings = settings

    def __call__(self, rows: pa.Table) -> pa.Table:
        numbers = rows.column("n").to_pylist()
        if self.settings.cannot_run:
            raise CannotRun("square: no such device here")
        for number in numbers:
            if number in self.settings.kills:
                os.kill(os.getpid(), signal.SIGKILL)
            if number in self.settings.raises:
                raise ValueError(f"{number} is not liked")
        if self.settings.log:
            with open(self.settings.log, "a") as file:
                file.write("".join(f"{number}\n" for number in numbers))
        squares = [number * number + self.settings.plus for number in numbers]
        return pa.table(
            {
                "square": pa.array(squares, pa.int64()),
                "body": pa.array([str(s).encode() for s in squares], pa.large_binary()),
                "error": pa.nulls(len(numbers), pa.string()),
            }
        )


def numbers(count: int) -> Phase:
    """0 .. count - 1, each in the range of its id."""

    def emit(part: Part, unit: Any) -> pa.Table:
        return pa.table({"id": [digest(str(n)) for n in unit], "n": pa.array(unit, pa.int64())})

    def run(part: Part, rows: pa.Table | None) -> pa.Table:
        assert rows is not None
        part.add("numbers", rows.num_rows)
        return rows

    return Phase(
        name="numbers",
        schema=NUMBER,
        run=run,
        settings={"count": count},
        rows_of_unit=len,
        units=lambda scout: [list(range(start, min(start + 10, count))) for start in range(0, count, 10)],
        exchange=Exchange(key="id", order=("n",), schema=pa.schema(list(NUMBER)), emit=emit),
    )


def squares(settings: SquareSettings, actors: bool = False, kind: type[Square] = Square) -> Phase:
    """numbers -> squares, by the memoised function; what it could not square is a decision."""
    square = Step(
        kind(settings), lambda part: part.read("numbers"), owner="id", key=("n",), table="numbers", model=actors
    )

    def run(part: Part, _: pa.Table | None) -> pa.Table:
        rows, result = part.answers(square)
        good = result.column("error").is_null()
        part.decide(
            [
                {
                    "kind": "document",
                    "action": "quarantine" if error.startswith("quarantined") else "drop",
                    "subject_id": key,
                    "rule": "square",
                    "detail": error,
                }
                for key, error in zip(rows.column("id").to_pylist(), result.column("error").to_pylist(), strict=True)
                if error is not None
            ]
        )
        blobs = part.blobs(result.column("body").filter(good))
        made = rows.filter(good).append_column("square", result.column("square").filter(good))
        assert [int(blob or b"-1") for blob in blobs] == made.column("square").to_pylist()
        return made

    return Phase(name="squares", schema=SQUARE, run=run, inputs=("numbers",), steps=(square,))


def last_digits(again: SquareSettings | None = None, actors: bool = False, kind: type[Square] = Square) -> Phase:
    """squares -> one row a last digit, gathered from all ranges; `again` squares the squares before they are summed."""

    def emit(part: Part, _: Any) -> pa.Table:
        rows = part.read("squares")
        digits = [n % 10 for n in rows.column("n").to_pylist()]
        return pa.table(
            {"digit": [digest(f"digit {d}") for d in digits], "n": rows.column("n"), "square": rows.column("square")}
        )

    def squares_of(part: Part) -> pa.Table:
        assert part.rows is not None
        return pa.table({"digit": part.rows.column("digit"), "n": part.rows.column("square")})

    steps = () if again is None else (Step(kind(again), squares_of, owner="digit", key=("n",), model=actors),)

    def run(part: Part, rows: pa.Table | None) -> pa.Table:
        assert rows is not None
        for step in steps:
            _, result = part.answers(step)
            rows = rows.set_column(rows.schema.get_field_index("square"), "square", result.column("square"))
        found: dict[str, list[dict[str, Any]]] = {}
        for row in rows.to_pylist():
            found.setdefault(row["digit"], []).append(row)
        return pa.Table.from_pylist(
            [
                {"digit": digit, "n": [r["n"] for r in group], "sum": sum(r["square"] for r in group)}
                for digit, group in sorted(found.items())
            ],
            schema=LAST_DIGIT,
        )

    schema = pa.schema([("digit", pa.string()), ("n", pa.int64()), ("square", pa.int64())])
    return Phase(
        name="last_digits",
        schema=LAST_DIGIT,
        run=run,
        inputs=("squares",),
        steps=steps,
        exchange=Exchange(key="digit", order=("digit", "n"), schema=schema, emit=emit),
    )


def total() -> Phase:
    """A global step: one row for each last digit."""

    def run(part: Part, _: pa.Table | None) -> pa.Table:
        tables = [table.drop_columns(["n"]) for table in part.read_all("last_digits")]
        rows = pa.concat_tables(tables).sort_by([("digit", "ascending")])
        return pa.table({"id": rows.column("digit"), "n": rows.column("sum")})

    return Phase(name="total", schema=NUMBER, run=run, inputs=("last_digits",), whole=True)


def tree(root: Path, under: str = "tables") -> dict[str, bytes]:
    """Bytes of every part file, by path: what must not depend on how it was made."""
    return {
        str(path.relative_to(root)): path.read_bytes()
        for path in sorted((root / under).rglob("*"))
        if path.is_file() and path.suffix in (".parquet", ".arrow")
    }
