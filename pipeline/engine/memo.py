"""Memoised application of row functions: look up, compute what is missing in key order, remember, never lose a row."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable, Sequence

import cloudpickle
import pyarrow as pa

from pipeline.engine.keys import function_key
from pipeline.engine.partition import KeyRange
from pipeline.engine.row_store import GENERATION, ROW_KEY, RowStore
from pipeline.engine.storage import Storage
from pipeline.packs import read_packed
from schemas.keys import digest
from schemas.page import LOCATOR
from stages.row_function import ERROR, CannotRun, RowFunction

# A killed worker loses at most this much work.
FLUSH_SECONDS = 5.0
FLUSH_ROWS = 4096
# Exit code of an isolated process whose function cannot run at all; the last line of its errors says why.
CANNOT_RUN = 3
QUARANTINED = "quarantined: "


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


def _failed(function: RowFunction, count: int, message: str) -> pa.Table:
    arrays = [
        pa.array([message] * count, pa.string()) if field.name == ERROR.name else pa.nulls(count, field.type)
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
            return _failed(function, 1, f"{type(error).__name__}: {error}".splitlines()[0][:300])
    half = rows.num_rows // 2
    return pa.concat_tables([compute(function, rows.slice(0, half)), compute(function, rows.slice(half))])


def compute_isolated(function: RowFunction, rows: pa.Table) -> pa.Table:
    """Run the function in a process of its own; when that dies, halve until the rows that kill it are quarantined."""
    payload = cloudpickle.dumps((function, rows))
    child = subprocess.run([sys.executable, "-m", "pipeline.engine.isolated"], input=payload, capture_output=True)
    if child.returncode == 0:
        with pa.ipc.open_stream(child.stdout) as reader:
            return reader.read_all().cast(function.output)
    if child.returncode == CANNOT_RUN:
        raise CannotRun(child.stderr.decode(errors="replace").strip().splitlines()[-1])
    if rows.num_rows == 1:
        why = f"signal {-child.returncode}" if child.returncode < 0 else f"exit {child.returncode}"
        return _failed(function, 1, f"{QUARANTINED}{function.name} ended its process ({why})")
    half = rows.num_rows // 2
    return pa.concat_tables(
        [compute_isolated(function, rows.slice(0, half)), compute_isolated(function, rows.slice(half))]
    )


def apply(
    function: RowFunction,
    rows: pa.Table,
    *,
    storage: Storage,
    within: KeyRange,
    isolate: bool,
    progress: Callable[[int, int], None],
) -> pa.Table:
    """Results of the function for `rows` (its input columns and row_key), aligned with them.

    Locators among the inputs are read only for rows that are computed; large_binary results come as locators.
    Rows with equal keys are computed once. `progress` is told (rows looked up, rows computed).
    """
    store = RowStore(storage, function.name, function_key(function), function.output)
    known = store.read(within)
    place = {key: index for index, key in enumerate(known.column(ROW_KEY).to_pylist())}
    keys = rows.column(ROW_KEY).to_pylist()
    first_row: dict[str, int] = {}
    for index, key in enumerate(keys):
        first_row.setdefault(key, index)
    missing = sorted(key for key in first_row if key not in place)
    progress(len(first_row) - len(missing), 0)
    run = compute_isolated if isolate else compute
    found = [known]
    waiting: list[pa.Table] = []
    last_flush = time.monotonic()

    def flush() -> None:
        nonlocal last_flush
        if waiting:
            found.append(store.append(pa.concat_tables(waiting), within))
            waiting.clear()
        last_flush = time.monotonic()

    inputs = rows.drop_columns([ROW_KEY])
    for start in range(0, len(missing), function.batch_size):
        batch = missing[start : start + function.batch_size]
        chosen = inputs.take(pa.array([first_row[key] for key in batch], pa.int64()))
        result = run(function, load_blobs(storage, chosen))
        result = result.add_column(0, ROW_KEY, pa.array(batch, pa.string()))
        waiting.append(result.add_column(1, GENERATION, pa.array([0] * len(batch), pa.int32())))
        progress(0, len(batch))
        late = time.monotonic() - last_flush > FLUSH_SECONDS
        if late or isolate or sum(table.num_rows for table in waiting) >= FLUSH_ROWS:
            flush()
    flush()
    table = pa.concat_tables(found).combine_chunks()
    place = {key: index for index, key in enumerate(table.column(ROW_KEY).to_pylist())}
    return table.take(pa.array([place[key] for key in keys], pa.int64()))
