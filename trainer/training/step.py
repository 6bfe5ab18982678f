"""One optimizer step: L = L_g + alpha L_d over all packs of all ranks, with exact gradients.

The structure loss couples every position of the step, the packs do not fit in memory together: two passes
(GradCache, Gao et al. 2021). Pass 1, without gradient: retrieval vectors of every pack. They are gathered, and the
closed form gives dL_d/dr for this rank's rows. Pass 2, pack by pack: cross-entropy / target tokens of all ranks
+ alpha <r, dL_d/dr>, one backward; gradients cross ranks with the last pack. With one pack a rank pass 1 is the
forward of pass 2. Dropout is seeded by (seed, step, pack), so both passes and every world size draw the same.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from trainer.data.collate import PackTensors, StepBatch
from trainer.data.pack_plan import seeded
from trainer.model.interleaved import InterleavedForCausalLM, PackedOutput
from trainer.objective.structure import similarity_statistics, structure_rows
from trainer.parallel.ranks import Ranks, without_sync
from trainer.recipe import Recipe
from trainer.training.optimizer import set_rate

Tensor = torch.Tensor


class PackedForward(nn.Module):
    """The model's packed forward as `forward`, since that is what data parallelism wraps."""

    def __init__(self, model: InterleavedForCausalLM) -> None:
        super().__init__()
        self.model = model

    def forward(self, pack: PackTensors) -> tuple[Tensor, Tensor]:
        """(summed cross-entropy, retrieval vectors) of one pack."""
        output: PackedOutput = self.model.forward_packed(pack)
        return output.loss_sum, output.retrieval


@dataclass(frozen=True)
class StepResult:
    """What a step measured; sums are over ranks."""

    generative: float  # L_g, nats per target token
    structure: float  # L_d
    loss: float  # L
    gradient_norm: float  # before clipping
    learning_rate: float
    targets: int
    tokens: int
    images: int
    positions: int
    skipped: bool  # loss or gradient was not finite and the weights were left alone
    unreadable: tuple[str, ...]  # images that could not be read, one line each
    statistics: dict[str, Any]  # of this rank's rows of the similarity matrix


class Stepper:
    """Runs steps on one model; holds no state besides the model's and the optimizer's."""

    def __init__(
        self, module: nn.Module, optimizer: torch.optim.Optimizer, recipe: Recipe, ranks: Ranks, dtype: torch.dtype
    ) -> None:
        self.module, self.optimizer, self.recipe, self.ranks, self.dtype = module, optimizer, recipe, ranks, dtype
        self.parameters = [parameter for parameter in module.parameters() if parameter.requires_grad]

    def _forward(self, module: nn.Module, pack: PackTensors, step: int) -> tuple[Tensor, Tensor]:
        torch.manual_seed(seeded("dropout", self.recipe.seed, step, pack.number) % 2**63)
        device = self.ranks.device.type
        with torch.autocast(device, self.dtype, enabled=self.dtype != torch.float32):
            loss_sum, vectors = module(pack)
        return loss_sum, vectors

    def gradients(self, batch: StepBatch) -> tuple[float, float, dict[str, Any]]:
        """Leave the step's gradient in the parameters; returns (L_g, L_d, similarity statistics).

        Summed over ranks the gradient is that of L on the whole step, whatever the number of ranks and packs.
        """
        ranks, alpha = self.ranks, self.recipe.objective.alpha
        packs = [pack.to(ranks.device) for pack in batch.packs]
        targets = max(1.0, ranks.sum(float(sum(len(pack.target_ids) for pack in packs))))
        plain: Any = getattr(self.module, "module", self.module)
        kept: tuple[Tensor, Tensor] | None = None
        structure, statistics = 0.0, dict[str, Any]()
        gradient: Tensor | None = None
        if alpha and sum(batch.counts):
            if len(packs) == 1:
                kept = self._forward(self.module, packs[0], batch.step)
                own = kept[1].detach()
            else:
                with torch.no_grad():
                    own = torch.cat([self._forward(plain, pack, batch.step)[1] for pack in packs])
            share = len(batch.counts) // ranks.world
            by_rank = [sum(batch.counts[r * share : (r + 1) * share]) for r in range(ranks.world)]
            every = ranks.gather_rows(own, by_rank)
            labels, weights = batch.labels.to(ranks.device), batch.weights.to(ranks.device)
            rows = weights[batch.row_start : batch.row_start + len(own)]
            terms = structure_rows(every, batch.row_start, labels, rows, batch.scale)
            gradient, structure = terms.gradient, ranks.sum(float(terms.value))
            statistics = similarity_statistics(every, batch.row_start, labels, rows, batch.lengths.to(ranks.device))
        total, done = 0.0, 0
        for number, pack in enumerate(packs):
            with without_sync(self.module, last=number == len(packs) - 1):
                loss_sum, vectors = kept if kept is not None else self._forward(self.module, pack, batch.step)
                loss = loss_sum / targets
                if gradient is not None:
                    loss = loss + alpha * (vectors * gradient[done : done + pack.num_states]).sum()
                else:
                    # The retrieval head takes part with weight zero: every rank must reduce the same parameters.
                    loss = loss + 0.0 * vectors.sum()
                torch.autograd.backward(loss * ranks.world)
            done += pack.num_states
            total += float(loss_sum.detach())
        return ranks.sum(total) / targets, structure, statistics

    def run(self, batch: StepBatch) -> StepResult:
        """One step: gradients, clipping, update."""
        self.module.train()
        self.optimizer.zero_grad(set_to_none=True)
        rate = set_rate(self.optimizer, batch.step, self.recipe.optimizer)
        generative, structure, statistics = self.gradients(batch)
        # After the exchange every rank has the same gradient, so clipping and skipping agree without a word.
        norm = float(nn.utils.clip_grad_norm_(self.parameters, self.recipe.optimizer.clip))
        loss = generative + self.recipe.objective.alpha * structure
        finite = math.isfinite(norm) and math.isfinite(loss)
        if finite:
            self.optimizer.step()
        sums = [
            self.ranks.sum(float(sum(counts)))
            for counts in (
                [len(pack.target_ids) for pack in batch.packs],
                [len(pack.input_ids) for pack in batch.packs],
                [pack.num_images for pack in batch.packs],
                [len(pack.unreadable) for pack in batch.packs],
            )
        ]
        lines = tuple(line for pack in batch.packs for line in pack.unreadable)
        # Rare, so the lines themselves cross ranks only when there are any.
        unreadable = tuple(line for found in self.ranks.gather(lines) for line in found) if sums[3] else ()
        return StepResult(
            generative=generative,
            structure=structure,
            loss=loss,
            gradient_norm=norm,
            learning_rate=rate,
            targets=int(sums[0]),
            tokens=int(sums[1]),
            images=int(sums[2]),
            positions=sum(batch.counts),
            skipped=not finite,
            unreadable=unreadable,
            statistics=statistics,
        )
