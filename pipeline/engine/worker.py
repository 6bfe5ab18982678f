"""What runs inside a Ray worker: one partition of one phase, from input parts to a receipt."""

from __future__ import annotations

import contextlib
import os
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import ray

from pipeline.engine.partition import partition_of
from pipeline.engine.phase import Part, Phase
from pipeline.engine.storage import Storage
from pipeline.engine.table import Receipt, Table
from schemas.decision import DECISION

PARTITION = "partition"


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
    num_partitions: int
    storage: Storage
    input_keys: dict[str, str]
    isolate: bool
    generation: int
    tally: Any  # actor handle, or None

    def table(self) -> Table:
        return Table(self.storage, self.phase.name, self.key)

    def part(self, index: int, count: int | None = None) -> Part:
        """Partition `index` as the phase's code sees it."""
        return Part(
            phase=self.phase.name,
            key=self.key,
            index=index,
            count=count or self.num_partitions,
            storage=self.storage,
            inputs={name: Table(self.storage, name, key) for name, key in self.input_keys.items()},
            isolate=self.isolate,
            generation=self.generation,
            tell=lambda looked_up, computed: tell(self.tally, self.phase.name, looked_up, computed, 0),
        )

    def emit(self, unit: Any) -> pa.Table:
        """Rows of one exchange unit, with their partition."""
        exchange = self.phase.exchange
        assert exchange is not None
        hide_unasked_gpus()
        if self.phase.units is None:
            rows = exchange.emit(self.part(int(unit)), None)
        else:
            rows = exchange.emit(self.part(0, 1), unit)
            tell(self.tally, self.phase.name, 0, 0, 0, seen=True)
        rows = rows.select(exchange.schema.names).cast(exchange.schema)
        return rows.append_column(PARTITION, partition_of(rows.column(exchange.key), self.num_partitions))

    def run(self, index: int, rows: pa.Table | None) -> dict[str, int]:
        """Make one part: table, decisions, receipt. Returns what the driver wants to know at once."""
        hide_unasked_gpus()
        part = self.part(index)
        exchange = self.phase.exchange
        if exchange is not None:
            rows = exchange.schema.empty_table() if rows is None else rows.combine_chunks()
            rows = rows.sort_by([(name, "ascending") for name in exchange.order])
        made = self.phase.run(part, rows)
        table = self.table()
        decisions = pa.concat_tables(part.decisions) if part.decisions else DECISION.empty_table()
        if self.phase.spread_by is None:
            pieces = [made]
            decided = [decisions]
            indices = [index]
        else:
            owner = np.asarray(partition_of(made.column(self.phase.spread_by), self.num_partitions))
            indices = list(range(self.num_partitions))
            pieces = [made.filter(pa.array(owner == each)) for each in indices]
            decided = [decisions if each == 0 else decisions.slice(0, 0) for each in indices]
        for each, piece, said in zip(indices, pieces, decided, strict=True):
            first = each == indices[0]
            table.put_receipt(
                each,
                Receipt(
                    parts=[table.put_part(each, piece, self.phase.schema)],
                    decisions=[table.put_decisions(each, said)] if said.num_rows else [],
                    files=part.files if first else [],
                    counts=part.counts if first else {},
                ),
            )
        # The driver asks for the sums once this part is done.
        tell(self.tally, self.phase.name, 0, 0, decisions.num_rows, seen=True)
        return {"partition": index, "rows": made.num_rows, "dropped": decisions.num_rows}
