"""The funnel: how much each rule took out, in the order of the build."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import pyarrow as pa

from pipeline.engine.aggregates import Aggregate, counts

# Count of the pages phase: pages that the sample of the source left out.
SAMPLED_OUT = "pages.sampled_out"

# What tells rules apart: columns of schemas.decision.DECISION.
RULE = ("phase", "kind", "rule", "action")


@dataclass(frozen=True)
class FunnelRow:
    """How much one rule took out."""

    phase: str
    rule: str
    kind: str  # schemas.decision.KINDS
    action: str  # schemas.decision.ACTIONS
    dropped: int


def by_rule() -> Aggregate:
    """Decisions by rule, which `funnel` takes."""
    return counts(*RULE)


def funnel(counted: pa.Table, phases: Sequence[str], sampled_out: int) -> list[FunnelRow]:
    """Rules in the order of the phases; within a phase and kind by falling count.

    `sampled_out` is how many pages the sample left out, before anything else: they have no decisions.
    """
    rows = [FunnelRow(row["phase"], row["rule"], row["kind"], row["action"], row["n"]) for row in counted.to_pylist()]
    if sampled_out:
        rows.append(FunnelRow("pages", "sample", "page", "drop", sampled_out))
    order = {phase: place for place, phase in enumerate(phases)}
    return sorted(rows, key=lambda row: (order[row.phase], row.kind, -row.dropped, row.rule, row.action))
