"""alignment stands alone: what it imports, when, and how its compiled kernels age."""

import ast
import pathlib
import subprocess
import sys

import pytest
import torch

import alignment
from alignment import choose_backend

FOLDER = pathlib.Path(alignment.__file__).parent
ALLOWED = {"alignment", "torch", "numpy", "numba", "llvmlite", "triton"}


def test_imports_torch_numpy_numba_and_triton_only():
    for path in FOLDER.glob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            names = []
            if isinstance(node, ast.Import):
                names = [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom):
                names = [node.module or "alignment"]
            for name in names:
                package = name.split(".")[0]
                assert package in ALLOWED or package in sys.stdlib_module_names, (path.name, name)


@pytest.mark.slow
def test_importing_it_is_light():
    code = (
        "import torch, sys; before = set(sys.modules); import alignment; "
        "print(sorted({name.split('.')[0] for name in set(sys.modules) - before}))"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "numba" not in result.stdout and "triton" not in result.stdout, result.stdout


def test_a_change_in_any_kernel_source_recompiles(monkeypatch, tmp_path):
    import alignment.simd

    first = alignment.simd._sources()
    for path in FOLDER.glob("*.py"):
        (tmp_path / path.name).write_text(path.read_text())
    (tmp_path / "rows.py").write_text((tmp_path / "rows.py").read_text() + "\n# changed\n")
    monkeypatch.setattr(alignment.simd, "__file__", str(tmp_path / "simd.py"))
    alignment.simd._sources.cache_clear()
    try:
        assert alignment.simd._sources() != first
    finally:
        alignment.simd._sources.cache_clear()
    from alignment.lane_kernel import align_pairs

    assert align_pairs._cache._cache_file._source_stamp == first


def test_dispatch():
    cost = torch.zeros((1, 2, 2))
    assert choose_backend(cost) == "lanes"
    assert choose_backend(cost, "wavefront") == "wavefront"
    assert choose_backend(cost.to("meta")) == "wavefront"
    with pytest.raises(ValueError, match="lanes"):
        choose_backend(cost.to("meta"), "lanes")
    with pytest.raises(ValueError, match="one of"):
        choose_backend(cost, "gpu")


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize("length", [17, 100])
def test_on_a_gpu(length):
    from alignment import expected_alignment, soft_dtw

    cost = torch.rand((200, length, length), generator=torch.Generator().manual_seed(0))
    n = torch.randint(1, length + 1, (200,), generator=torch.Generator().manual_seed(1))
    for function in (soft_dtw, expected_alignment):
        found = function(cost.to("cuda"), 0.05, n, n).cpu()
        torch.testing.assert_close(found, function(cost, 0.05, n, n), rtol=1e-5, atol=1e-5)


@pytest.mark.slow
def test_survives_a_fork():
    """DataLoader workers fork after the parent has used its threads."""
    code = (
        "import os, torch; from alignment import soft_dtw; torch.set_num_threads(2);"
        "cost = torch.rand((400, 40, 40)); wanted = soft_dtw(cost, 0.1); child = os.fork();\n"
        "if child == 0:\n    os._exit(0 if torch.equal(soft_dtw(cost, 0.1), wanted) else 3)\n"
        "assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0"
    )
    subprocess.run([sys.executable, "-W", "ignore", "-c", code], check=True, timeout=60)
