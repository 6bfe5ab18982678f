"""Ranks: one process or many, by torchrun's environment or by whoever started the process group already.

Gloo between CPUs, NCCL between GPUs. Every collective of the trainer is here; a single process has none.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from trainer.errors import TOLD, UserError
from trainer.recipe import ParallelRecipe

Tensor = torch.Tensor
T = TypeVar("T")


@dataclass(frozen=True)
class Ranks:
    """This process among its peers."""

    rank: int
    world: int
    device: torch.device
    owns_group: bool  # whether this trainer started the process group, and so ends it

    @property
    def first(self) -> bool:
        """Whether this is the rank that writes files and talks."""
        return self.rank == 0

    def sum(self, value: float) -> float:
        """The sum of a number over ranks, in float64."""
        if self.world == 1:
            return value
        total = torch.tensor(value, dtype=torch.float64, device=self.device)
        dist.all_reduce(total)
        return float(total)

    def any(self, flag: bool) -> bool:
        """Whether the flag is up on any rank."""
        return self.sum(float(flag)) > 0

    def gather_rows(self, rows: Tensor, counts: Sequence[int]) -> Tensor:
        """Rows of all ranks in rank order, float32 (sum(counts), D), without gradient; counts per rank."""
        if self.world == 1:
            return rows
        padded = rows.new_zeros((max(counts), rows.shape[1]))
        padded[: len(rows)] = rows
        parts = [torch.empty_like(padded) for _ in counts]
        dist.all_gather(parts, padded)
        return torch.cat([part[:count] for part, count in zip(parts, counts, strict=True)])

    def gather(self, value: T) -> list[T]:
        """Every rank's value (any picklable object), in rank order."""
        if self.world == 1:
            return [value]
        box: list[Any] = [None] * self.world
        dist.all_gather_object(box, value)
        return box

    def told(self, work: Callable[[], T]) -> T:
        """What `work` gives on the first rank, the only one to do it, on every rank; what it raises of
        trainer.errors.TOLD, every rank raises."""
        if self.world == 1:
            return work()
        box: list[Any] = [None, None]
        if self.first:
            try:
                box[0] = work()
            except TOLD as error:
                box[1] = error
        dist.broadcast_object_list(box, src=0)
        if box[1] is not None:
            raise box[1]
        result: T = box[0]
        return result

    def close(self) -> None:
        """End the process group if this trainer started it."""
        if self.owns_group and dist.is_initialized():
            dist.destroy_process_group()


def start(recipe: ParallelRecipe) -> Ranks:
    """Join the peers, choose the device, set threads.

    A GPU where there is one, by LOCAL_RANK; else the CPU, its cores shared between the ranks of this machine.
    Raises UserError when a launcher's environment is incomplete.
    """
    local = int(os.environ.get("LOCAL_RANK", "0"))
    cuda = torch.cuda.is_available()
    device = torch.device("cuda", local % max(1, torch.cuda.device_count())) if cuda else torch.device("cpu")
    if cuda:
        torch.cuda.set_device(device)
    owns = False
    if not dist.is_initialized() and int(os.environ.get("WORLD_SIZE", "1")) > 1:
        try:
            timeout = timedelta(seconds=recipe.timeout)
            dist.init_process_group("nccl" if cuda else "gloo", timeout=timeout)
        except ValueError as error:
            raise UserError(f"WORLD_SIZE is set but {error}; start several ranks with torchrun") from None
        owns = True
    world = dist.get_world_size() if dist.is_initialized() else 1
    rank = dist.get_rank() if dist.is_initialized() else 0
    beside = int(os.environ.get("LOCAL_WORLD_SIZE", str(world)))
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    torch.set_num_threads(recipe.threads or max(1, cores // max(1, beside)))
    return Ranks(rank, world, device, owns)


def wrap(module: nn.Module, ranks: Ranks) -> nn.Module:
    """The module under DistributedDataParallel when there are peers. Its backward then averages gradients, so a
    loss whose sum over ranks is wanted is multiplied by the world size first."""
    if ranks.world == 1:
        return module
    return DistributedDataParallel(module, device_ids=[ranks.device] if ranks.device.type == "cuda" else None)


def without_sync(module: nn.Module, last: bool) -> AbstractContextManager[None]:
    """Around all microbatches but the last: gradients pile up locally and cross ranks once."""
    if isinstance(module, DistributedDataParallel) and not last:
        context: AbstractContextManager[None] = module.no_sync()
        return context
    return nullcontext()


def precision(recipe: ParallelRecipe, device: torch.device) -> torch.dtype:
    """The compute type: bfloat16 under autocast or float32, see ParallelRecipe.precision."""
    if recipe.precision != "auto":
        return torch.bfloat16 if recipe.precision == "bfloat16" else torch.float32
    if device.type == "cuda":
        native = torch.cuda.is_bf16_supported()
    else:
        # Emulated bfloat16 would be slower than float32.
        probes = ("_is_avx512_bf16_supported", "_is_amx_tile_supported")
        native = any(bool(getattr(torch.cpu, name, bool)()) for name in probes)
    return torch.bfloat16 if native else torch.float32


def numerics(recipe: ParallelRecipe, ranks: Ranks) -> dict[str, Any]:
    """What decides a run's numbers besides recipe and corpus, for its checkpoints.

    Raises UserError on every rank when they would not compute in the same precision.
    """
    every = [str(dtype).removeprefix("torch.") for dtype in ranks.gather(precision(recipe, ranks.device))]
    if len(set(every)) > 1:
        other = next(rank for rank, name in enumerate(every) if name != every[0])
        raise UserError(
            f"rank 0 computes in {every[0]} and rank {other} in {every[other]}, by what their machines can do; "
            f"pass --set parallel.precision=float32 or bfloat16"
        )
    return {
        "precision": every[0],
        "device": ranks.device.type,
        "ranks": ranks.world,
        "threads": torch.get_num_threads(),
        "torch": str(torch.__version__),
    }
