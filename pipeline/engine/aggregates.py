"""Aggregates: what there is to say of all rows of a table, put together from what each of its files says.

No process holds a table: of a file its aggregates alone are kept, which are bounded by what they say (counts, sums, the
first rows of an order). What several files say is put together by this process where it is little, and else by
dask.dataframe: on Ray where one runs, in this process where none does. All of it is over whole numbers and total
orders, so the same rows give the same answer, however they are cut into files and wherever they are counted.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from multiprocessing.pool import ThreadPool
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from pipeline.engine.storage import Storage
from pipeline.engine.table import Table, read_listed
from schemas.manifest import ListedFile, Part

# Bytes of files that are read faster here than dask is imported (2 s) and sent out.
FEW_BYTES = 32 << 20
# Bytes of files whose different names, as hosts, one process can hold.
SPREAD_BYTES = 1 << 30
# Threads that hand tasks to Ray.
_SUBMITTERS = 4

Of = Callable[[pa.Table], pa.Table]


@dataclass(frozen=True)
class Aggregate:
    """One thing to know: what some rows say of it, and how what several say becomes one.

    `together` takes what `of` or itself has made, one after the other and in any grouping.
    """

    of: Of
    together: Of


@dataclass(frozen=True)
class Ranking:
    """The most frequent values of a text column, and how many others there are.

    The answer has the columns `by`, `n` (rows) and `others`: the values by falling number of rows and by name, where a
    null stands as "None" would; then one row for all other values where there are any, which says how many these are.
    """

    by: str
    most: int


@dataclass(frozen=True)
class Rows:
    """Rows to be aggregated: files, or whatever else they are cut into, and how one of them is read."""

    read: Callable[[Any], pa.Table]  # runs where the rows are counted, so it has to pickle
    parts: Sequence[Any]
    schema: pa.Schema  # of what `read` returns
    bytes: int

    def aggregate(self, *wanted: Aggregate | Ranking) -> list[pa.Table]:
        """What is wanted, in that order; every part is read once. Raises what reading raises."""
        if self.bytes <= FEW_BYTES or not self.parts:
            return _here(self, wanted)
        return _by_dask(self, wanted)


def table_rows(table: Table, schema: pa.Schema, columns: Sequence[str]) -> Rows:
    """Some columns of a table, whose contract is `schema`."""
    return _files(table.storage, table.parts, schema, columns)


def decision_rows(tables: Iterable[Table], schema: pa.Schema) -> Rows:
    """What the phases of one corpus decided (schemas.decision.DECISION)."""
    found = list(tables)
    files = [file for table in found for file in table.record.decisions]
    return _files(found[0].storage, files, schema, schema.names) if found else Rows(_none, [], schema, 0)


def counts(*by: str) -> Aggregate:
    """Rows by the values of some columns, null among them, as column `n`; ordered by these."""
    return Aggregate(partial(_counted, by), partial(summed, by))


def totals(*columns: str) -> Aggregate:
    """Sums of whole numbers: one row."""
    return Aggregate(partial(_totals, columns), partial(_totals, columns))


def matching(column: str, names: Iterable[str]) -> Aggregate:
    """The rows that have one of the names, which are few, in the order of the parts."""
    return Aggregate(partial(_matching, column, sorted(names)), _same)


def summed(by: Sequence[str], table: pa.Table) -> pa.Table:
    """The sums of column `n` by some columns, ordered by these."""
    found = table.group_by(list(by), use_threads=False).aggregate([("n", "sum")])
    return found.select([*by, "n_sum"]).rename_columns([*by, "n"]).sort_by([(name, "ascending") for name in by])


def _files(storage: Storage, files: Sequence[ListedFile | Part], schema: pa.Schema, columns: Sequence[str]) -> Rows:
    narrow = pa.schema([schema.field(name) for name in columns], schema.metadata)
    read = partial(read_listed, storage, columns=tuple(columns))
    return Rows(read, files, narrow, sum(file.bytes for file in files))


def _none(_: Any) -> pa.Table:
    raise AssertionError("there is nothing to read")


def _same(table: pa.Table) -> pa.Table:
    return table


def _counted(by: Sequence[str], table: pa.Table) -> pa.Table:
    return summed(by, table.select(by).append_column("n", pa.repeat(1, len(table))))


def _totals(columns: Sequence[str], table: pa.Table) -> pa.Table:
    return pa.table({name: pa.array([pc.sum(table.column(name), min_count=0).as_py()], pa.int64()) for name in columns})


def _matching(column: str, names: Sequence[str], table: pa.Table) -> pa.Table:
    return table.filter(pc.is_in(table.column(column), value_set=pa.array(names, pa.string())))


def _ranked(by: str, most: int, table: pa.Table) -> pa.Table:
    """The first of some counts of different values, or of such answers."""
    if "others" not in table.column_names:
        table = table.append_column("others", pa.nulls(len(table), pa.int64()))
    alone = pc.is_null(table.column("others"))
    values = table.filter(alone).append_column("name", pc.fill_null(table.filter(alone).column(by), "None"))
    values = values.sort_by([("n", "descending"), ("name", "ascending"), (by, "ascending")]).drop_columns(["name"])
    rest = pa.concat_tables([values.slice(most).set_column(2, "others", pa.repeat(1, max(len(values) - most, 0))),
                             table.filter(pc.invert(alone))])  # fmt: skip
    if not len(rest):
        return values
    last = [[None], [pc.sum(rest.column("n")).as_py()], [pc.sum(rest.column("others")).as_py()]]
    return pa.concat_tables([values.slice(0, most), pa.table(last, schema=values.schema)])


def _here(rows: Rows, wanted: Sequence[Aggregate | Ranking]) -> list[pa.Table]:
    said: list[list[pa.Table]] = [[each] for each in _said(wanted, rows.schema.empty_table())]
    for part in rows.parts:
        for held, found in zip(said, _said(wanted, rows.read(part)), strict=True):
            held.append(found)
    answers = []
    for each, held in zip(wanted, said, strict=True):
        table = _plain(pa.concat_tables(map(_plain, held)))
        if isinstance(each, Ranking):
            answers.append(_ranked(each.by, each.most, summed([each.by], table)))
        else:
            answers.append(each.together(table))
    return answers


def _said(wanted: Sequence[Aggregate | Ranking], table: pa.Table) -> list[pa.Table]:
    """What some rows say of each."""
    return [_counted([each.by], table) if isinstance(each, Ranking) else each.of(table) for each in wanted]


def _plain(table: pa.Table) -> pa.Table:
    """Without metadata and promises about nulls, which pandas does not keep either."""
    return table.cast(pa.schema([pa.field(field.name, field.type) for field in table.schema]))


def _by_dask(rows: Rows, wanted: Sequence[Aggregate | Ranking]) -> list[pa.Table]:
    import dask.dataframe as dd

    empty = rows.schema.empty_table()
    frame = dd.from_map(partial(_read, rows.read), list(rows.parts), meta=_frame(empty))
    asked = []
    for each, meta in zip(wanted, _said(wanted, empty), strict=True):
        if isinstance(each, Ranking):
            counted = frame.map_partitions(partial(_apply, partial(_counted, [each.by])), meta=_frame(meta))
            # Where the names are many, each process puts together those of some hashes.
            groups = counted.groupby(each.by, dropna=False, sort=False)["n"]
            whole = groups.sum(split_out=1 + rows.bytes // SPREAD_BYTES).reset_index()
            rank = partial(_apply, partial(_ranked, each.by, each.most))
            steps = {"chunk": rank, "combine": rank, "aggregate": rank}
            asked.append(whole.reduction(**steps, meta=_frame(_ranked(each.by, each.most, meta))))
        else:
            together = partial(_apply, each.together)
            steps = {"chunk": partial(_apply, each.of), "combine": together, "aggregate": together}
            asked.append(frame.reduction(**steps, meta=_frame(meta)))
    return [_table(answer) for answer in _computed(asked)]


def _computed(asked: Sequence[Any]) -> Sequence[Any]:
    """dask's collections as pandas, computed on the Ray that runs, or here where none does."""
    import dask

    # The program imports no Ray to find that it has none.
    ray = sys.modules.get("ray")
    with dask.config.set({"dataframe.shuffle.method": "tasks", "dataframe.convert-string": False}):
        if ray is None or not ray.is_initialized():
            return tuple(dask.compute(*asked, scheduler="synchronous"))
        from ray.util.dask import ray_dask_get

        with ThreadPool(_SUBMITTERS) as pool:
            try:
                return tuple(dask.compute(*asked, scheduler=ray_dask_get, pool=pool))
            except ray.exceptions.RayTaskError as error:
                raise error.cause from None  # in its own words, as without Ray


def _read(read: Callable[[Any], pa.Table], part: Any) -> Any:
    return _frame(read(part))


def _apply(function: Of, frame: Any) -> Any:
    return _frame(function(_table(frame)))


def _frame(table: pa.Table) -> Any:
    """As pandas with Arrow's own types, so that whole numbers stay whole and nulls stay null."""
    import pandas as pd

    return table.to_pandas(types_mapper=pd.ArrowDtype, ignore_metadata=True)


def _table(frame: Any) -> pa.Table:
    return _plain(pa.Table.from_pandas(frame, preserve_index=False).replace_schema_metadata(None))
