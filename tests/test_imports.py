"""Imports go one way, and importing us opens no connection and starts nothing heavy."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
LEAVES = {"schemas", "alignment", "assets", "pictures"}
# Folder -> those of our packages it may import besides itself.
ALLOWED: dict[str, set[str]] = {
    "schemas": set(),
    "alignment": set(),
    "assets": set(),
    "pictures": set(),
    "stages": LEAVES,
    "pipeline": LEAVES | {"stages"},
    "trainer": LEAVES,
    "dags": set(),
    "specs": set(),
    "recipes": set(),
}
RAY_OUTSIDE_PIPELINE = {"trainer/parallel/ray_launch.py", "dags/corpus_build.py"}


def imported(path: Path) -> set[str]:
    """Top-level packages that a file imports, wherever the import stands."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found.update(alias.name.split(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            found.add(node.module.split(".")[0])
        elif isinstance(node, ast.ImportFrom) and node.level:
            found.add(path.relative_to(ROOT).parts[0])
    return found


@pytest.mark.parametrize("package", sorted(ALLOWED))
def test_imports_point_one_way(package: str) -> None:
    files = sorted((ROOT / package).rglob("*.py"))
    assert files, f"{package} has no files"
    for path in files:
        ours = imported(path) & set(ALLOWED)
        wrong = ours - ALLOWED[package] - {package}
        assert not wrong, f"{path.relative_to(ROOT)} imports {sorted(wrong)}"


def test_only_the_pipeline_and_the_launchers_know_ray() -> None:
    for package in ALLOWED:
        for path in (ROOT / package).rglob("*.py"):
            name = str(path.relative_to(ROOT))
            if package != "pipeline" and name not in RAY_OUTSIDE_PIPELINE:
                assert "ray" not in imported(path), name


def test_the_checker_sees_a_wrong_import(tmp_path: Path) -> None:
    wrong = tmp_path / "wrong.py"
    wrong.write_text("def f():\n    from pipeline.spec.loading import Spec\n    import trainer.run\n")
    assert imported(wrong) == {"pipeline", "trainer"}
