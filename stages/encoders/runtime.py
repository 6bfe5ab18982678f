"""Where and how a network runs; torch is imported once one does, for it takes seconds."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from stages.encoders.protocol import Precision

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True)
class Runtime:
    """Where and how a network runs."""

    device: str = "auto"
    """torch device, or "auto": a GPU when there is one."""
    precision: Precision = "float32"
    """Of weights and activations; what comes out is float32."""
    batch_size: int = 32
    """Rows of the fixed shape."""

    @property
    def torch_device(self) -> torch.device:
        """`device` with "auto" resolved on this machine."""
        import torch

        if self.device != "auto":
            return torch.device(self.device)
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")

    @property
    def dtype(self) -> torch.dtype:
        """`precision` as torch names it."""
        import torch

        return {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}[self.precision]

    def place(self, model: torch.nn.Module) -> Any:
        """The model frozen, in evaluation mode, on the device, in the precision."""
        import torch

        from stages.encoders.linear import speed_up

        placed = model.eval().requires_grad_(False).to(device=self.torch_device, dtype=self.dtype)
        if self.torch_device.type == "cpu" and self.dtype == torch.float32:
            speed_up(placed)
        return placed
