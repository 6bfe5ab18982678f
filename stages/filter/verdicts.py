"""Rules to verdicts: the first rule that fails decides, and what it decided becomes decision rows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from schemas.decision import DECISION
from stages.filter.settings import Bounds


@dataclass(frozen=True, slots=True)
class Rule:
    """A named bound over one value a row; NaN means the rule has nothing to say about the row."""

    name: str
    values: NDArray[np.float64]
    bounds: Bounds

    def fails(self) -> NDArray[np.bool_]:
        """Rows outside the bounds."""
        failed = np.zeros(len(self.values), np.bool_)
        if self.bounds.min is not None:
            failed |= self.values < self.bounds.min
        if self.bounds.max is not None:
            failed |= self.values > self.bounds.max
        return failed


@dataclass(frozen=True, slots=True)
class Verdicts:
    """For each row the index of the first rule it fails, or -1."""

    rules: Sequence[Rule]
    first: NDArray[np.int64]

    @property
    def passed(self) -> NDArray[np.bool_]:
        """Rows that no rule drops."""
        return self.first < 0

    def columns(self, rows: NDArray[np.int64]) -> dict[str, list[Any]]:
        """Columns rule, value, low and high of decision rows for the given (failed) rows."""
        rules = [self.rules[i] for i in self.first[rows].tolist()]
        values = [float(rule.values[row]) for rule, row in zip(rules, rows.tolist(), strict=True)]
        return {
            "rule": [rule.name for rule in rules],
            "value": [None if np.isnan(value) else value for value in values],
            "low": [rule.bounds.min for rule in rules],
            "high": [rule.bounds.max for rule in rules],
        }


def judge(rules: Sequence[Rule], num_rows: int) -> Verdicts:
    """The first failing rule of each of `num_rows` rows, in the order given."""
    first = np.full(num_rows, -1, np.int64)
    for index, rule in enumerate(rules):
        first[(first < 0) & rule.fails()] = index
    return Verdicts(rules, first)


def decision_table(
    kind: str, action: str, subject_id: Sequence[str | None], **columns: Sequence[Any] | NDArray[Any]
) -> pa.Table:
    """Decision rows from columns; what is not given is null, and the phase is empty: whoever runs one names it."""
    num_rows = len(subject_id)
    given: dict[str, Any] = {
        "phase": [""] * num_rows,
        "kind": [kind] * num_rows,
        "action": [action] * num_rows,
        "subject_id": subject_id,
        **columns,
    }
    return pa.Table.from_arrays(
        [
            pa.array(given[field.name], field.type) if field.name in given else pa.nulls(num_rows, field.type)
            for field in DECISION
        ],
        schema=DECISION,
    )


def float_values(array: pa.Array | pa.ChunkedArray) -> NDArray[np.float64]:
    """A numeric Arrow column as float64, nulls as NaN."""
    if isinstance(array, pa.ChunkedArray):
        array = array.combine_chunks()
    return np.asarray(array.cast(pa.float64()).to_numpy(zero_copy_only=False), np.float64)


def ratio(numerator: NDArray[np.float64], denominator: NDArray[np.float64]) -> NDArray[np.float64]:
    """Numerator over denominator, NaN where there is nothing to divide by."""
    result = np.full(len(numerator), np.nan)
    np.divide(numerator, denominator, out=result, where=denominator > 0)
    return result
