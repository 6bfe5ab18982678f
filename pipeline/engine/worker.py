"""What runs inside a Ray worker: one key range of one phase, from its inputs to a receipt."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import ray

from pipeline.engine.adoption import Probe
from pipeline.engine.key_range import WHOLE, KeyRange, places
from pipeline.engine.phase import Part, Phase
from pipeline.engine.storage import Storage
from pipeline.engine.table import Table, described
from pipeline.engine.work_folder import WorkFolder
from schemas.decision import DECISION
from stages.row_function import RowFunction

# Column of an exchange: which of the ranges at work a row belongs to.
RANGE = "range"


def tell(tally: Any, phase: str, looked_up: int, computed: int, dropped: int, *, seen: bool = False) -> None:
    """Pass progress on to the tally actor, if there is one; `seen` waits until it has counted this and all before."""
    if tally is not None:
        with contextlib.suppress(Exception):  # progress is for the eyes: a lost line must not fail a part
            counted = tally.add.remote(phase, looked_up, computed, dropped)
            if seen:
                ray.get(counted, timeout=10)


def hide_unasked_gpus() -> None:
    """Let a task see no GPU but those it was given: Ray shows all of them to one that asked for none."""
    if not ray.get_runtime_context().get_accelerator_ids().get("GPU"):
        os.environ |= dict.fromkeys(("CUDA_VISIBLE_DEVICES", "HIP_VISIBLE_DEVICES"), "")


@dataclass(frozen=True)
class Work:
    """A phase under its key, ready to be sent to workers."""

    phase: Phase
    key: str
    ranges: Sequence[KeyRange]  # still to be made, in order
    storage: Storage
    inputs: Mapping[str, Table]
    isolate: bool
    generation: int
    tally: Any  # actor handle, or None
    batch_sizes: Mapping[str, int]  # of row functions that the spec gives another than their own
    probe: Probe | None = None  # where rows are only computed again, to compare them

    @property
    def folder(self) -> WorkFolder:
        return WorkFolder(self.storage, self.phase.name, self.key)

    def part(self, keys: KeyRange) -> Part:
        """A key range as the phase's code sees it."""
        return Part(
            phase=self.phase.name,
            key=self.key,
            keys=keys,
            storage=self.storage,
            inputs=self.inputs,
            generation=self.generation,
            tell=self.told,
        )

    def told(self, looked_up: int, computed: int) -> None:
        """Pass on how many rows were found and how many computed."""
        tell(self.tally, self.phase.name, looked_up, computed, 0)

    def batch_size(self, function: RowFunction) -> int:
        """Rows of a function a call."""
        return self.batch_sizes.get(function.name, function.batch_size)

    def ordered(self, rows: pa.Table | None) -> pa.Table | None:
        """Rows of an exchange in the order that it promises."""
        exchange = self.phase.exchange
        if exchange is None:
            return None
        rows = exchange.schema.empty_table() if rows is None else rows.combine_chunks()
        return rows.sort_by([(name, "ascending") for name in exchange.order])

    def emit(self, unit: Any) -> pa.Table:
        """Rows of one exchange unit that belong to a range at work, and to which."""
        exchange = self.phase.exchange
        assert exchange is not None
        hide_unasked_gpus()
        if self.phase.units is None:
            rows = exchange.emit(self.part(unit), None)
        else:
            rows = exchange.emit(self.part(WHOLE), unit)
            tell(self.tally, self.phase.name, 0, 0, 0, seen=True)
        rows = rows.select(exchange.schema.names).cast(exchange.schema)
        found = pa.array(places(rows.column(exchange.key), self.ranges), pa.int64())
        rows = rows.append_column(RANGE, found)
        return rows.filter(pc.greater_equal(found, 0))

    def run(self, index: int, rows: pa.Table | None) -> dict[str, int]:
        """Make one range: rows, decisions, receipt. Returns what the driver wants to know at once."""
        hide_unasked_gpus()
        part = self.part(self.ranges[index])
        part.rows = self.ordered(rows)
        made = self.phase.run(part, part.rows)
        files = []
        for file in part.files:
            self.storage.write(file.name, file.data)
            files.append(described(file.name, file.data, file.rows))
        decisions = pa.concat_tables(part.decisions) if part.decisions else DECISION.empty_table()
        self.folder.put(part.keys, self.generation, made, self.phase.schema, decisions, files, part.counts)
        # The driver asks for the sums once this range is done.
        tell(self.tally, self.phase.name, 0, 0, decisions.num_rows, seen=True)
        return {RANGE: index, "rows": made.num_rows, "dropped": decisions.num_rows}
