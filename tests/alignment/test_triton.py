"""The Triton kernels: run by Triton's interpreter on the CPU, compiled for a GPU that need not be there."""

import importlib
import os
import pathlib
import subprocess
import sys

import pytest

triton = pytest.importorskip("triton", reason="Triton is published for Linux only")


@pytest.mark.slow
def test_interpreted_kernels_equal_the_others():
    """In a process of its own: Triton decides at import whether to interpret."""
    cases = pathlib.Path(__file__).with_name("interpreted.py")
    result = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", str(cases)],
        env={**os.environ, "TRITON_INTERPRET": "1"},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert result.returncode == 0 and "13 passed" in result.stdout, result.stdout + result.stderr


@pytest.mark.slow
@pytest.mark.parametrize("double", [False, True])
def test_kernels_compile_for_a_gpu(double):
    """Catches what the interpreter lets pass: types that change in loops, Python values, dtypes."""
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    kernels = importlib.import_module("alignment.triton_kernel")
    whole = ("pairs", "rows", "columns", "diagonals")
    constants = {
        "KEEP": True,
        "BLOCK": 64,
        "DOUBLE": double,
        "NEGLIGIBLE": 400.0 if double else 60.0,
        "FLUSH": 1e-150 if double else 1e-18,
    }
    for name in ("forward_lanes", "backward_lanes", "forward_program", "backward_program"):
        kernel = getattr(kernels, name)
        fixed = {key: value for key, value in constants.items() if key in kernel.arg_names}
        signature = {}
        for argument in kernel.arg_names:
            floats = "*fp64" if double else "*fp32"
            pointer = "*i64" if argument.startswith("lengths") else floats
            signature[argument] = "constexpr" if argument in fixed else "i32" if argument in whole else pointer
        source = ASTSource(fn=kernel, signature=signature, constexprs=fixed)
        compiled = triton.compile(source, target=GPUTarget("cuda", 90, 32), options={"num_warps": 2})
        assert ".visible .entry" in compiled.asm["ptx"]
