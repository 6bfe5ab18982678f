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
# Room of pipeline/ -> the rooms it may import besides itself; the commands at the root may import all of them.
ROOMS: dict[str, set[str]] = {
    "engine": set(),
    "spec": {"engine"},
    "phases": {"engine", "spec"},
    "corpus": {"engine", "spec"},
    "report": {"engine", "spec", "corpus"},
    "builds": {"engine", "spec", "phases", "corpus", "report"},
    "lit": set(),
    "demo": {"engine", "corpus"},
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


@pytest.mark.slow
@pytest.mark.parametrize("package", sorted(ALLOWED))
def test_imports_point_one_way(package: str) -> None:
    files = sorted((ROOT / package).rglob("*.py"))
    assert files, f"{package} has no files"
    for path in files:
        ours = imported(path) & set(ALLOWED)
        wrong = ours - ALLOWED[package] - {package}
        assert not wrong, f"{path.relative_to(ROOT)} imports {sorted(wrong)}"


def test_rooms_of_the_pipeline_point_one_way() -> None:
    rooms = {path.name for path in (ROOT / "pipeline").iterdir() if path.is_dir() and any(path.glob("*.py"))}
    assert rooms == set(ROOMS)
    for room, allowed in ROOMS.items():
        for path in (ROOT / "pipeline" / room).rglob("*.py"):
            # `python -m pipeline.report` is a command, wherever its file stands.
            inside = set() if path.name == "__main__.py" else modules(path)
            found = {name.split(".")[1] for name in inside if name.startswith("pipeline.")}
            assert not found - allowed - {room}, f"{path.relative_to(ROOT)} imports {sorted(found - allowed - {room})}"


@pytest.mark.parametrize("package", sorted(ALLOWED))
def test_no_file_is_in_a_circle(package: str) -> None:
    """Not even by an import inside a function, or for type checking alone."""
    files = {_name(path): path for path in (ROOT / package).rglob("*.py")}
    needs = {name: modules(path) & set(files) - {name} for name, path in files.items()}
    while ready := {name for name, needed in needs.items() if not needed & set(needs)}:
        needs = {name: needed for name, needed in needs.items() if name not in ready}
    # What is left are circles, and what only leads into one.
    assert not {name: sorted(needed & set(needs)) for name, needed in needs.items()}


def _name(path: Path) -> str:
    """Module name of a file."""
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def modules(path: Path) -> set[str]:
    """Modules that a file imports, with the names it takes from them, wherever the import stands."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            names = {f"{node.module}.{alias.name}" for alias in node.names}
            # A package that lends the name of one of its files lends the file alone.
            here = {name for name in names if (ROOT / f"{name.replace('.', '/')}.py").is_file()}
            found |= here if here == names else here | {node.module}
    return found


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
    assert modules(wrong) == {"pipeline.spec.loading", "trainer.run"}
