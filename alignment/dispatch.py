"""One place that decides which implementation runs."""

import importlib.util
import os
from functools import cache
from typing import Literal, get_args

import torch

from alignment.lanes import align
from alignment.wavefront import wavefront_alignment, wavefront_table, wavefront_values

Backend = Literal["auto", "lanes", "triton", "wavefront"]
_BACKENDS = get_args(Backend)


@cache
def _installed(package: str) -> bool:
    return importlib.util.find_spec(package) is not None


def choose_backend(cost: torch.Tensor, backend: Backend = "auto") -> Backend:
    """The implementation for this cost: `backend` itself, or for "auto"

    - "lanes" on the CPU: pairs as SIMD lanes, compiled by numba;
    - "triton" on GPUs that Triton serves: a lane a pair up to 64 slices, a program a pair above;
    - "wavefront" elsewhere, and on a CPU without numba: plain torch.

    The device alone decides. On the CPU lanes win at every size in both dtypes: one pair of single slices
    takes a sixth of the wavefront's time (14 against 85 microseconds), one of 64 a sixtieth, and four
    float64 pairs of 2000 a fifteenth.
    Raises ValueError for a backend that cannot run on the tensor's device.
    """
    if backend not in _BACKENDS:
        raise ValueError(f"backend must be one of {_BACKENDS}, got {backend!r}")
    on_cpu = cost.is_cpu
    if backend == "lanes" and not on_cpu:
        raise ValueError(f'backend "lanes" runs on the CPU, the cost is on {cost.device}')
    if backend == "triton" and on_cpu and os.environ.get("TRITON_INTERPRET") != "1":
        raise ValueError('backend "triton" runs on GPUs (and on CPUs under TRITON_INTERPRET=1), the cost is on cpu')
    if backend != "auto":
        return backend
    if on_cpu:
        return "lanes" if _installed("numba") else "wavefront"
    if cost.device.type in ("cuda", "xpu") and _installed("triton"):
        return "triton"
    return "wavefront"


def values_of(
    cost: torch.Tensor,
    gamma: float,
    lengths_x: torch.Tensor,
    lengths_y: torch.Tensor,
    band: int | None,
    backend: Backend,
) -> torch.Tensor:
    """soft-DTW of each pair, detached."""
    chosen = choose_backend(cost, backend)
    if chosen == "lanes":
        return align(cost, gamma, lengths_x, lengths_y, band)[0]
    cost = cost.detach()
    if chosen == "triton":
        from alignment.triton_launch import triton_align

        return triton_align(cost, gamma, lengths_x, lengths_y, band, want_expected=False)[0]
    return wavefront_values(cost, gamma, lengths_x, lengths_y, band)


def alignment_of(
    cost: torch.Tensor,
    gamma: float,
    lengths_x: torch.Tensor,
    lengths_y: torch.Tensor,
    band: int | None,
    backend: Backend,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Values and expected alignments, detached."""
    chosen = choose_backend(cost, backend)
    if chosen == "lanes":
        return align(cost, gamma, lengths_x, lengths_y, band, want_expected=True)[:2]
    cost = cost.detach()
    if chosen == "triton":
        from alignment.triton_launch import triton_align

        return triton_align(cost, gamma, lengths_x, lengths_y, band, want_expected=True)
    return wavefront_alignment(cost, gamma, lengths_x, lengths_y, band)


def table_of(
    cost: torch.Tensor,
    gamma: float,
    lengths_x: torch.Tensor,
    lengths_y: torch.Tensor,
    band: int | None,
    backend: Backend,
) -> torch.Tensor:
    """R of every cell, detached. Triton has no kernel for it: tables are labels, made on the CPU."""
    if choose_backend(cost, backend) == "lanes":
        return align(cost, gamma, lengths_x, lengths_y, band, want_table=True)[2]
    with torch.no_grad():
        return wavefront_table(cost.detach(), gamma, lengths_x, lengths_y, band)
