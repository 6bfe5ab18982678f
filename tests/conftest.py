"""What all tests share: no usage reports, no hub, no network beyond loopback, and nothing left behind.

Marks follow from what a test uses: `ray` for those that need a Ray or build a whole corpus, `airflow` for the DAG's.
`torchrun` and `slow` are written where they are meant. `make check` leaves out all four.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import hypothesis
import pytest

from tests import leftovers

ROOT = Path(__file__).resolve().parents[1]

os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
# Ray's workers are given less of a processor than other processes, as those of the tests that run beside are.
os.environ.setdefault("RAY_worker_niceness", "0")
os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
os.environ.setdefault("NO_ALBUMENTATIONS_UPDATE", "1")
os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
os.environ.setdefault("HYPOTHESIS_STORAGE_DIRECTORY", str(ROOT / ".cache" / "hypothesis"))

# How long an example takes says how busy the machine is.
hypothesis.settings.register_profile("any machine", deadline=None)
hypothesis.settings.load_profile("any machine")

# Fixtures that start a Ray, by name; a test has those that its fixtures ask for too.
STARTS_RAY = {"local_ray", "head", "built"}


@pytest.hookimpl(tryfirst=True)
def pytest_configure(config: pytest.Config) -> None:
    config.stash[_LEFT] = []
    if _is_worker(config):
        if folder := os.environ.get("INTERLOOM_RAY_SESSIONS"):
            # Each of pytest-xdist's processes has a Ray of its own, and does not see the others'.
            os.environ["RAY_TMPDIR"] = str(Path(folder, config.workerinput["workerid"]))  # type: ignore[attr-defined]
        return
    config.stash[_BEFORE] = leftovers.in_checkout(ROOT)
    if "RAY_TMPDIR" not in os.environ:
        # Below /tmp: the paths of Ray's sockets are short. Ray never removes its sessions.
        folder = tempfile.mkdtemp(prefix="il-", dir="/tmp")
        config.stash[_RAY] = os.environ["RAY_TMPDIR"] = os.environ["INTERLOOM_RAY_SESSIONS"] = folder


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        folder = item.path.relative_to(ROOT / "tests").parts[0]
        if folder == "dags":
            item.add_marker("airflow")
        elif folder == "end_to_end" or STARTS_RAY & set(getattr(item, "fixturenames", ())):
            item.add_marker("ray")


@pytest.fixture(scope="session")
def local_ray() -> Iterator[dict[str, float]]:
    """A local Ray, started once, for all tests that need none of their own."""
    from pipeline.engine.cluster import connected
    from pipeline.engine.plans import configure_ray_data

    with connected(2, 200_000_000) as resources:
        configure_ray_data()
        yield resources


@pytest.hookimpl(trylast=True)
def pytest_sessionfinish(session: pytest.Session, exitstatus: int) -> None:
    """Fails a session that leaves something running or lying about, and notes how it ended (tests/verdict.py)."""
    config = session.config
    left = config.stash[_LEFT]
    left += leftovers.threads()
    if _is_worker(config):
        config.workeroutput["left"] = left  # type: ignore[attr-defined]  # xdist's
        return
    left += leftovers.processes()
    if (before := config.stash[_BEFORE]) is not None:
        left += sorted((leftovers.in_checkout(ROOT) or set()) - before)
    if left and session.exitstatus == 0:
        session.exitstatus = pytest.ExitCode.TESTS_FAILED
    if folder := config.stash.get(_RAY, None):
        shutil.rmtree(folder, ignore_errors=True)
    if path := os.environ.get("INTERLOOM_VERDICT"):
        Path(path).write_text(str(int(session.exitstatus)))


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node: Any, error: Any) -> None:
    """A worker of pytest-xdist has ended."""
    node.config.stash[_LEFT] += getattr(node, "workeroutput", {}).get("left", [])


def pytest_terminal_summary(terminalreporter: Any, config: pytest.Config) -> None:
    for line in config.stash[_LEFT]:
        terminalreporter.write_line(f"LEFT BEHIND: {line}", red=True)


def _is_worker(config: pytest.Config) -> bool:
    """Whether this is a process of pytest-xdist."""
    return hasattr(config, "workerinput")


_LEFT = pytest.StashKey[list[str]]()
_BEFORE = pytest.StashKey[set[str] | None]()
_RAY = pytest.StashKey[str]()
