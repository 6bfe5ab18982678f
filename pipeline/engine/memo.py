"""Rows that row functions have computed are remembered: which are missing, what became of each; no row is lost."""

from __future__ import annotations

import re
from collections.abc import Sequence

import pyarrow as pa
import pyarrow.compute as pc

from pipeline.engine.key_range import KeyRange
from pipeline.engine.keys import function_key
from pipeline.engine.packs import read_packed
from pipeline.engine.resident import QUARANTINED, RESIDENT, Resident, RowEnded
from pipeline.engine.row_store import GENERATION, ROW_KEY, RowStore
from pipeline.engine.storage import Storage
from schemas.keys import digest
from schemas.page import LOCATOR
from stages.row_function import ERROR, CannotRun, RowFunction, limits_of

# Beside every result: it failed, in a way that may pass.
RETRYABLE = pa.field("retryable", pa.bool_())
# Errors of rows, as `compute`, the resident process and the stages write them, that say more of the machine than of
# a row.
_MAY_PASS = re.compile(
    rf"{QUARANTINED}|(\w+: )?(MemoryError|ArrowMemoryError|OutOfMemoryError|TimeoutError|TimeLimit|MemoryLimit)\b"
    r"|.*\[Errno (11|12|23|24|28)\]"
)


def row_keys(table: pa.Table, owner: str, columns: Sequence[str]) -> pa.Array:
    """Hex keys of rows: 8 digits of the owner's key, which keep a partition's rows together, then 24 of the content."""
    owners = table.column(owner).to_pylist()
    values = [table.column(name).to_pylist() for name in columns]
    return pa.array(
        [
            key[:8] + digest(*("" if v is None else f"={v}" for v in row))[:24]
            for key, *row in zip(owners, *values, strict=True)
        ],
        pa.string(),
    )


def load_blobs(storage: Storage, table: pa.Table) -> pa.Table:
    """The table with its locator columns replaced by the bytes they point to; Damaged when those are not there."""
    for index, field in enumerate(table.schema):
        if field.type == LOCATOR:
            values = read_packed(storage, table.column(index))
            table = table.set_column(index, field.name, pa.array(values, pa.large_binary()))
    return table


def may_pass(error: str | None) -> bool:
    """Whether what kept a row from being computed may not keep it the next time: memory, time, a process that died."""
    return error is not None and _MAY_PASS.match(error) is not None


def _failed(function: RowFunction, message: str) -> pa.Table:
    arrays = [
        pa.array([message], pa.string()) if field.name == ERROR.name else pa.nulls(1, field.type)
        for field in function.output
    ]
    return pa.Table.from_arrays(arrays, schema=function.output)


def _checked(function: RowFunction, rows: pa.Table, result: pa.Table) -> pa.Table:
    if result.num_rows != rows.num_rows:
        raise RuntimeError(f"{function.name} returned {result.num_rows} rows for {rows.num_rows}")
    return result.select(function.output.names).cast(function.output)


def compute(function: RowFunction, rows: pa.Table) -> pa.Table:
    """Run the function; when a batch raises, halve it until the rows that raise stand alone as error rows."""
    try:
        return _checked(function, rows, function(rows))
    except CannotRun:
        raise
    except Exception as error:
        if rows.num_rows == 1:
            return _failed(function, f"{type(error).__name__}: {error}".splitlines()[0][:300])
    half = rows.num_rows // 2
    return pa.concat_tables([compute(function, rows.slice(0, half)), compute(function, rows.slice(half))])


def compute_isolated(function: RowFunction, rows: pa.Table, resident: Resident = RESIDENT) -> pa.Table:
    """Run the function in the worker's child; rows that end it, or overrun their limits, stand alone as error rows."""
    limits = limits_of(function)
    try:
        return resident.run(function, rows, limits).cast(function.output)
    except RowEnded as ended:
        if rows.num_rows == 1:
            return _failed(function, str(ended))
    return pa.concat_tables(
        [compute_isolated(function, rows.slice(index, 1), resident) for index in range(rows.num_rows)]
    )


def output_of(function: RowFunction) -> pa.Schema:
    """Columns of a function's results as they are stored."""
    return pa.schema([*function.output, RETRYABLE])


def store_of(function: RowFunction, storage: Storage) -> RowStore:
    """Where the results of a function lie."""
    return RowStore(storage, function.name, function_key(function), output_of(function))


def unanswered(
    function: RowFunction, rows: pa.Table, *, storage: Storage, within: KeyRange, generation: int
) -> tuple[pa.Table, int]:
    """(Those of `rows`, which carry their ROW_KEY, that no store answers, by key, each once; how many keys it does.)

    What failed in a way that may pass in an earlier `generation` is asked again.
    """
    known = judged(store_of(function, storage).keys(within))
    again = pc.and_(known.column(RETRYABLE.name), pc.less(known.column(GENERATION), generation))
    there = set(known.filter(pc.invert(again)).column(ROW_KEY).to_pylist())
    first = first_rows(rows)
    missing = sorted(key for key in first if key not in there)
    return rows.take(pa.array([first[key] for key in missing], pa.int64())), len(first) - len(missing)


def first_rows(rows: pa.Table) -> dict[str, int]:
    """Row key -> the first row that has it."""
    found: dict[str, int] = {}
    for index, key in enumerate(rows.column(ROW_KEY).to_pylist()):
        found.setdefault(key, index)
    return found


class Unanswered(RuntimeError):
    """Rows that the store of their function lacks: they have to be computed first."""


def answers(function: RowFunction, keys: pa.Array, *, storage: Storage, within: KeyRange) -> pa.Table:
    """What a function made of the rows with these keys, in their order; Unanswered when the store lacks one.

    The store's range is compacted for it: a table may have these locators.
    """
    wanted = pc.unique(keys).to_pylist()
    known = judged(store_of(function, storage).compact(within, wanted=wanted))
    places = pc.index_in(keys, value_set=known.column(ROW_KEY).combine_chunks())
    if places.null_count:
        raise Unanswered(f"{function.name}: {places.null_count} of {len(keys)} rows are not computed")
    return known.take(places)


def judged(rows: pa.Table) -> pa.Table:
    """The rows, with `retryable` where it is null: files of earlier releases do not have it."""
    column = rows.column(RETRYABLE.name)
    if not column.null_count:
        return rows
    said = pa.array([may_pass(error) for error in rows.column(ERROR.name).to_pylist()], pa.bool_())
    place = rows.schema.get_field_index(RETRYABLE.name)
    return rows.set_column(place, RETRYABLE, pc.coalesce(column, said))
