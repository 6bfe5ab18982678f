"""The funnel: how much each rule took out, in the order of the build."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

import pyarrow as pa

# Count of the pages phase: pages that the sample of the source left out.
SAMPLED_OUT = "pages.sampled_out"

Rule = tuple[str, str, str, str]  # phase, kind, rule, action


@dataclass(frozen=True)
class FunnelRow:
    """How much one rule took out."""

    phase: str
    rule: str
    kind: str  # schemas.decision.KINDS
    action: str  # schemas.decision.ACTIONS
    dropped: int


@dataclass
class Funnel:
    """Counts of all rules, phases in build order."""

    counts: Counter[Rule] = field(default_factory=Counter)
    phases: list[str] = field(default_factory=list)

    def add(self, decisions: pa.Table) -> None:
        """Take in one file of schemas.decision.DECISION."""
        grouped = decisions.select(["phase", "kind", "rule", "action"]).group_by(
            ["phase", "kind", "rule", "action"], use_threads=False
        )
        for row in grouped.aggregate([([], "count_all")]).to_pylist():
            self.counts[row["phase"], row["kind"], row["rule"], row["action"]] += row["count_all"]
            if row["phase"] not in self.phases:
                self.phases.append(row["phase"])

    def add_sampled_out(self, number: int) -> None:
        """Take in how many pages the sample left out, before anything else: they have no decisions to be counted by."""
        if number:
            self.counts["pages", "page", "sample", "drop"] += number
            self.phases.append("pages")

    def rows(self) -> list[FunnelRow]:
        """Rules in build order; within a phase and kind by falling count."""
        order = {phase: place for place, phase in enumerate(self.phases)}
        rows = [FunnelRow(phase, rule, kind, action, n) for (phase, kind, rule, action), n in self.counts.items()]
        return sorted(rows, key=lambda row: (order[row.phase], row.kind, -row.dropped, row.rule, row.action))
