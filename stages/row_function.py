"""Row functions: the expensive work that a corpus pays for once a row.

A row function turns a batch into as many rows, in the same order, each depending on its own input row
and the settings alone: not on its neighbours, the batch size, the time or the machine's worker count.
That is what lets a row be remembered for ever under (input, function) and shared between builds.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import pyarrow as pa
from pydantic import BaseModel, ConfigDict

# A row that could not be computed carries one line here and nulls elsewhere; null means it could.
ERROR = pa.field("error", pa.string())


class CannotRun(RuntimeError):
    """A row function cannot run here at all (no such device, weights that do not load): no row is to blame.

    The message is one line that says what to do. Any other exception is taken for the fault of a row.
    """


@dataclass(frozen=True)
class Limits:
    """What one row may take before it is given up as a row with an error, which --retry-failed computes again.

    No part of a key: they decide about rows that would not end, not about results.
    """

    seconds: float = 60.0
    """Processor seconds, thousands of times what a page or picture takes. Default: ours, what one row may hold up."""
    megabytes: int = 4000
    """Memory in use by the process that computes it. Default: ours, several copies of the largest picture that
    images.max_pixels admits by default."""


def limits_of(function: RowFunction) -> Limits | None:
    """The limits of a row function's rows: its attribute `limits`, Limits() where it has none.

    None is for functions that see only what others have made of what came from outside (decoded pictures, sentences),
    and hold too much to be started again for a row: they run in the worker itself.
    """
    limits: Limits | None = getattr(function, "limits", Limits())
    return limits


class Settings(BaseModel):
    """Base of every settings model: unknown fields, silent coercions, infinities and later changes are errors."""

    model_config = ConfigDict(
        strict=True, extra="forbid", frozen=True, use_attribute_docstrings=True, allow_inf_nan=False
    )


@runtime_checkable
class RowFunction(Protocol):
    """One memoised computation. Its key is code + `settings` + versions of `libraries` + `weights`."""

    @property
    def name(self) -> str:
        """Folder of its row store, e.g. "extract"."""

    @property
    def settings(self) -> BaseModel | None:
        """All that steers the result besides the row."""

    @property
    def libraries(self) -> tuple[str, ...]:
        """Distributions whose version shapes the result, e.g. ("selectolax",)."""

    @property
    def weights(self) -> str | None:
        """Hash of the model weights it uses, or None."""

    @property
    def output(self) -> pa.Schema:
        """Columns it returns, `error` among them; large_binary columns are kept in pack files."""

    @property
    def batch_size(self) -> int:
        """Rows it wants at a time."""

    def __call__(self, rows: pa.Table) -> pa.Table:
        """Rows in, as many rows out, in order."""


@runtime_checkable
class PreparedFunction(RowFunction, Protocol):
    """A row function in two parts, the first of which needs no model: CPUs do it while the model is at work."""

    def prepare(self, rows: pa.Table) -> pa.Table:
        """What the model sees of each row, in order; a row that gives nothing carries ERROR."""

    def forward(self, prepared: pa.Table) -> pa.Table:
        """Prepared rows in, the function's output, in order."""
