"""Phases at work without a Ray: on tables that are cut as one likes."""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping, Sequence

import pyarrow as pa

from pipeline.engine.key_range import WHOLE, KeyRange, evenly, places, within
from pipeline.engine.phase import Part, Phase
from pipeline.engine.storage import Storage
from schemas.contract import conform, key_of


class Cut:
    """A table of an earlier phase, in files of ranges of its own; counts what is read of it."""

    def __init__(self, rows: pa.Table, files: int) -> None:
        self.rows = rows
        self.files = evenly(files)
        self.read_whole = 0

    def read(self, keys: KeyRange) -> pa.Table:
        return within(self.rows, key_of(self.rows.schema), keys)

    def read_all(self, columns: Sequence[str] | None = None) -> Iterator[pa.Table]:
        self.read_whole += 1
        tables = (self.read(file) for file in self.files)
        return (table if columns is None else table.select(columns) for table in tables)


def part_of(phase: Phase, inputs: Mapping[str, Cut], keys: KeyRange, storage: Storage | None = None) -> Part:
    """A part that sees its phase's inputs and, where one is given, a storage."""
    found = storage or Storage("/nowhere")
    return Part(phase.name, "", keys, found, {name: inputs[name] for name in phase.inputs})


def driven(
    phase: Phase, inputs: Mapping[str, Cut], ranges: Sequence[KeyRange], storage: Storage | None = None
) -> tuple[pa.Table, pa.Table | None, dict[str, int]]:
    """(rows, decisions, counts) of a phase in these ranges; what its exchange brings comes in a chance order."""
    if phase.whole:
        ranges = [WHOLE]
    brought = None
    if phase.exchange is not None:
        sent = [phase.exchange.emit(part_of(phase, inputs, keys), None) for keys in ranges]
        assert all(set(phase.exchange.schema.names) <= set(rows.column_names) for rows in sent)
        names = phase.exchange.schema.names
        brought = pa.concat_tables(rows.select(names).cast(phase.exchange.schema) for rows in sent)
        order = list(range(brought.num_rows))
        random.Random(len(ranges)).shuffle(order)
        brought = brought.take(pa.array(order, pa.int64()))
    made, decisions, counts = [], [], {}
    for index, keys in enumerate(ranges):
        part, rows = part_of(phase, inputs, keys, storage), None
        if brought is not None and phase.exchange is not None:
            mine = pa.array(places(brought.column(phase.exchange.key), ranges) == index)
            rows = brought.filter(mine).sort_by([(name, "ascending") for name in phase.exchange.order])
        made.append(conform(phase.run(part, rows), phase.schema))
        decisions += part.decisions
        for name, number in part.counts.items():
            counts[name] = counts.get(name, 0) + number
    return pa.concat_tables(made), pa.concat_tables(decisions) if decisions else None, counts
