"""How the kernels of this folder are compiled. numba is imported with this module, and so with every kernel."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import numba

Function = TypeVar("Function", bound=Callable[..., Any])


def jit(function: Function) -> Function:
    """Compile at first use, release the GIL, keep the machine code on disk.

    It is made again when the kernel's own file changes, so a kernel takes no number from another file of ours.
    """
    compiled: Function = numba.njit(function, nogil=True, cache=True, error_model="numpy")
    return compiled
