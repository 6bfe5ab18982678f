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
from pipeline.engine.table import Table
from pipeline.engine.work_folder import WorkFolder
from schemas.decision import DECISION

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
    probe: Probe | None = None

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
            isolate=self.isolate,
            generation=self.generation,
            probe=self.probe,
            tell=lambda looked_up, computed: tell(self.tally, self.phase.name, looked_up, computed, 0),
        )

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
        exchange = self.phase.exchange
        if exchange is not None:
            rows = exchange.schema.empty_table() if rows is None else rows.combine_chunks()
            rows = rows.sort_by([(name, "ascending") for name in exchange.order])
        made = self.phase.run(part, rows)
        if self.probe is not None:
            self.folder.put_comparison(part.keys, part.compared)
            return {"range": index, "rows": 0, "dropped": 0}
        decisions = pa.concat_tables(part.decisions) if part.decisions else DECISION.empty_table()
        self.folder.put(part.keys, self.generation, made, self.phase.schema, decisions, part.files, part.counts)
        # The driver asks for the sums once this range is done.
        tell(self.tally, self.phase.name, 0, 0, decisions.num_rows, seen=True)
        return {"range": index, "rows": made.num_rows, "dropped": decisions.num_rows}
