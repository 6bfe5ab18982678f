"""Linear layers of a frozen network on the CPU."""

import torch

from alignment.products import product_with_transposed


class _FrozenLinear(torch.nn.Linear):
    """The same layer by the fastest library there is; no gradients."""

    def forward(self, input: torch.Tensor) -> torch.Tensor:
        return product_with_transposed(input, self.weight, self.bias)


def speed_up(model: torch.nn.Module) -> None:
    """Change the linear layers of a float32 network on the CPU to faster ones, in place; weights stay as they are."""
    for module in model.modules():
        if type(module) is torch.nn.Linear:
            module.__class__ = _FrozenLinear
