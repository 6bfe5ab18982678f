"""The wheel, as made from a clean checkout: all of every package is in it, and it runs away from the checkout."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
# Top-level packages that stay in the checkout.
KEPT_BACK = {"benchmarks", "tests"}


def run(*command: str, cwd: Path, **variables: str) -> subprocess.CompletedProcess[str]:
    env = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"} | variables
    return subprocess.run(command, cwd=cwd, env=env, capture_output=True, text=True, timeout=300)


def tracked() -> list[str]:
    """Files of the checkout that git knows, as they are now."""
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    return [name for name in listed.split("\0") if name and (ROOT / name).is_file()]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel; the index is not asked, as the build backend of this environment makes it."""
    checkout, dist = tmp_path_factory.mktemp("checkout"), tmp_path_factory.mktemp("dist")
    for name in tracked():
        (checkout / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(ROOT / name, checkout / name)
    command = [sys.executable, "-m", "pip", "wheel", "--no-deps", "--no-index", "--no-build-isolation", ".", "-w"]
    done = run(*command, str(dist), cwd=checkout)
    assert done.returncode == 0, done.stdout + done.stderr
    (found,) = dist.glob("interloom-*.whl")
    return found


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the wheel alone; what it depends on stays where it is."""
    target = tmp_path_factory.mktemp("installed")
    command = [sys.executable, "-m", "pip", "install", "--no-deps", "--no-index", "--target", str(target), str(wheel)]
    done = run(*command, cwd=target)
    assert done.returncode == 0, done.stdout + done.stderr
    return target


@pytest.mark.slow
def test_it_holds_every_file_of_every_package(wheel: Path) -> None:
    names = tracked()
    packages = {name.split("/")[0] for name in names if name.count("/") == 1 and name.endswith("/__init__.py")}
    assert packages > KEPT_BACK
    wanted = {name for name in names if name.split("/")[0] in packages - KEPT_BACK}
    wanted |= {name for name in names if "/" not in name and name.endswith(".py")}
    held = set(zipfile.ZipFile(wheel).namelist())
    beside = {name for name in held if name.split("/")[0].endswith((".dist-info", ".data"))}
    assert held - beside == wanted
    dags = {name.split("/data/", 1)[1] for name in beside if "/data/" in name}
    assert dags == {f"share/interloom/{name}" for name in names if name.startswith("dags/")}


ASK = """
import importlib, pathlib, sys
import interloom
for name in ["interloom", *sys.argv[2:]]:
    found = pathlib.Path(importlib.import_module(name).__file__)
    assert found.is_relative_to(sys.argv[1]), found
"""


@pytest.mark.slow
def test_it_runs_away_from_the_checkout(installed: Path, tmp_path: Path) -> None:
    packages = sorted(path.parent.name for path in installed.glob("*/__init__.py"))
    assert {"pipeline", "trainer"} <= set(packages)
    alone = {"PYTHONPATH": str(installed)}
    done = run(sys.executable, "-c", ASK, str(installed), *packages, cwd=tmp_path, **alone)
    assert done.returncode == 0, done.stderr
    dry = run(sys.executable, "-m", "pipeline.build", "--spec", "demo", "--dry-run", cwd=tmp_path, **alone)
    assert dry.returncode == 0, dry.stderr
    assert "phases would run, or may have to; nothing was done" in dry.stdout
    told = run(sys.executable, "-m", "trainer.run", "--help", cwd=tmp_path, **alone)
    assert told.returncode == 0 and "--config" in told.stdout
    command = run(str(installed / "bin" / "interloom"), "spec", "show", "mmc4", cwd=tmp_path, **alone)
    assert command.returncode == 0 and "name: mmc4" in command.stdout
    assert list(tmp_path.iterdir()) == []
