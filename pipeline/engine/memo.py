"""Memoised application of row functions: look up, compute what is missing in key order, remember, never lose a row."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Sequence

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

# A killed worker loses at most this much work.
FLUSH_SECONDS = 5.0
FLUSH_ROWS = 4096
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


def apply(
    function: RowFunction,
    rows: pa.Table,
    *,
    storage: Storage,
    within: KeyRange,
    isolate: bool,
    generation: int,
    progress: Callable[[int, int], None],
) -> pa.Table:
    """Results of the function for `rows` (its input columns and row_key), aligned with them.

    Locators among the inputs are read only for rows that are computed; large_binary results come as locators.
    Rows with equal keys are computed once. The column `retryable` of the result says which failed in a way that may
    pass; those of an earlier `generation` are computed again. `progress` is told (rows looked up, rows computed).
    """
    output = pa.schema([*function.output, RETRYABLE])
    store = RowStore(storage, function.name, function_key(function), output)
    known = _judged(store.keys(within))
    again = pc.and_(known.column(RETRYABLE.name), pc.less(known.column(GENERATION), generation))
    known = known.filter(pc.invert(again))
    place = {key: index for index, key in enumerate(known.column(ROW_KEY).to_pylist())}
    keys = rows.column(ROW_KEY).to_pylist()
    first_row: dict[str, int] = {}
    for index, key in enumerate(keys):
        first_row.setdefault(key, index)
    missing = sorted(key for key in first_row if key not in place)
    progress(len(first_row) - len(missing), 0)
    run = compute_isolated if isolate or limits_of(function) is not None else compute
    waiting: list[pa.Table] = []
    last_flush = time.monotonic()

    def flush() -> None:
        nonlocal last_flush
        if waiting:
            store.append(pa.concat_tables(waiting), within)
            waiting.clear()
        last_flush = time.monotonic()

    inputs = rows.drop_columns([ROW_KEY])
    for start in range(0, len(missing), function.batch_size):
        batch = missing[start : start + function.batch_size]
        chosen = inputs.take(pa.array([first_row[key] for key in batch], pa.int64()))
        result = run(function, load_blobs(storage, chosen))
        result = _judged(result.append_column(RETRYABLE, pa.nulls(len(batch), pa.bool_())))
        result = result.add_column(0, ROW_KEY, pa.array(batch, pa.string()))
        waiting.append(result.add_column(1, GENERATION, pa.array([generation] * len(batch), pa.int32())))
        progress(0, len(batch))
        late = time.monotonic() - last_flush > FLUSH_SECONDS
        if late or isolate or sum(table.num_rows for table in waiting) >= FLUSH_ROWS:
            flush()
    table = _judged(store.compact(within, pa.concat_tables(waiting) if waiting else None, wanted=list(first_row)))
    place = {key: index for index, key in enumerate(table.column(ROW_KEY).to_pylist())}
    if len(place) < len(first_row):
        # Values that were damaged are found out, and dropped with their rows, when they are compacted.
        return apply(
            function,
            rows,
            storage=storage,
            within=within,
            isolate=isolate,
            generation=generation,
            progress=progress,
        )
    return table.take(pa.array([place[key] for key in keys], pa.int64()))


def _judged(rows: pa.Table) -> pa.Table:
    """The rows, with `retryable` where it is null: files of earlier releases do not have it."""
    column = rows.column(RETRYABLE.name)
    if not column.null_count:
        return rows
    said = pa.array([may_pass(error) for error in rows.column(ERROR.name).to_pylist()], pa.bool_())
    place = rows.schema.get_field_index(RETRYABLE.name)
    return rows.set_column(place, RETRYABLE, pc.coalesce(column, said))
