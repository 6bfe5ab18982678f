"""Positions in sequences of slices: what labels are of."""

from dataclasses import dataclass, replace

import torch

from alignment.arguments import check_lengths
from alignment.label_settings import LabelSettings


@dataclass(frozen=True)
class Positions:
    """Positions of a batch: each has seen a sequence of slices up to some slice of it.

    slices: (sequences, longest) int64, the slices of every sequence in reading order, as indices into one
    row of slices, which sequences may share; what lies beyond lengths (sequences,) is never read.
    sequence, end: (positions,) int64, the sequence of each position and the place in it of the last slice
    seen. document: (sequences,) int64, equal for sequences of one document; None: each is its own.
    whole: (sequences,) int64, slices of the whole document, for sigma `pair`; None: `lengths`.
    """

    slices: torch.Tensor
    lengths: torch.Tensor
    sequence: torch.Tensor
    end: torch.Tensor
    document: torch.Tensor | None = None
    whole: torch.Tensor | None = None

    def __len__(self) -> int:
        return len(self.end)

    @property
    def owner(self) -> torch.Tensor:
        """(positions,), the document of each position."""
        return self.sequence if self.document is None else self.document[self.sequence]

    @property
    def whole_lengths(self) -> torch.Tensor:
        """(sequences,), slices of the whole document."""
        return self.lengths if self.whole is None else self.whole

    def starts(self, settings: LabelSettings) -> torch.Tensor:
        """(positions,), the place of the first slice of each label sequence, which ends at `end`."""
        if settings.span == "window":
            return (self.end - settings.window + 1).clamp(min=0)
        return torch.zeros_like(self.end)

    def span_lengths(self, settings: LabelSettings) -> torch.Tensor:
        """(positions,), slices of each label sequence."""
        return self.end - self.starts(settings) + 1

    def checked(self, slices: int) -> "Positions":
        """The same on the CPU; ValueError for shapes, and for indices that are out of bounds of `slices` slices."""
        given = {name: value for name, value in vars(self).items() if value is not None}
        for name, value in given.items():
            if value.dtype not in (torch.int64, torch.int32) or value.dim() != (2 if name == "slices" else 1):
                shape = "(sequences, longest)" if name == "slices" else "one axis"
                raise ValueError(f"{name} must be whole numbers with {shape}, got {value.dtype} {tuple(value.shape)}")
        moved = replace(self, **{name: value.detach().cpu().long() for name, value in given.items()})
        count, longest = moved.slices.shape
        check_lengths(moved.lengths, "lengths", count, longest)
        for name in ("document", "whole"):
            if name in given and len(given[name]) != count:
                raise ValueError(f"{name} must have shape ({count},), got ({len(given[name])},)")
        if moved.sequence.shape != moved.end.shape:
            raise ValueError(
                f"sequence and end must both have shape (positions,), got {tuple(moved.sequence.shape)} and "
                f"{tuple(moved.end.shape)}"
            )
        if len(moved) and (int(moved.sequence.min()) < 0 or int(moved.sequence.max()) >= count):
            raise ValueError(f"sequence must lie in 0..{count - 1}")
        outside = torch.nonzero((moved.end < 0) | (moved.end >= moved.lengths[moved.sequence]))[:, 0]
        if len(outside):
            worst = int(outside[0])
            raise ValueError(
                f"end must lie inside its sequence: position {worst} ends at slice {int(moved.end[worst])} of "
                f"sequence {int(moved.sequence[worst])}, which has {int(moved.lengths[moved.sequence[worst]])}"
            )
        named = moved.slices[moved.inside()]
        if len(named) and (int(named.min()) < 0 or int(named.max()) >= slices):
            raise ValueError(f"slices must lie in 0..{slices - 1} within their lengths")
        return moved

    def inside(self) -> torch.Tensor:
        """(sequences, longest) bool, which entries of `slices` count."""
        return torch.arange(self.slices.shape[1])[None, :] < self.lengths[:, None]
