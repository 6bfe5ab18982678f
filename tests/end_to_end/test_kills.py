"""Kills at random moments: the driver, alone or with all its processes, and single workers of a build.

INTERLOOM_KILLS says how many; `make soak` takes twenty.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import random
import shutil
import time
from pathlib import Path

import psutil
import pytest

from tests.end_to_end.builds import setting, shards
from tests.end_to_end.processes import count_files, daemons, descendants, left_over, started, wait_for_files, workers

# New files after which a kill strikes, at most; a whole build writes about 200.
MOST_FILES = 40
KILLS = int(os.environ.get("INTERLOOM_KILLS", "3"))
# What is struck, in turns, so that a few kills are of all kinds that differ most.
STRUCK = ("driver", "worker", "everything", "worker", "servant")


def strike_worker(driver: psutil.Popen, kind: str, seeded: random.Random) -> str | None:
    """Kill one of the driver's workers as soon as there is one of the kind; its name, or None when the build ends."""
    while driver.poll() is None:
        # Actors that serve a build have a name of their own; tasks and encoders are called after what they do to rows.
        serving = ("ray::_", "ray::Tally")
        if found := [each for each in workers(driver) if each.name.startswith(serving) == (kind == "servant")]:
            victim = seeded.choice(found)
            with contextlib.suppress(psutil.NoSuchProcess):
                victim.process.kill()
                return victim.name
        time.sleep(0.02)
    return None


def strike_driver(driver: psutil.Popen, and_all: bool) -> list[psutil.Process]:
    """Kill the driver, and all its processes with it or none; the rest ends by itself, last the agents it returns."""
    family = descendants(driver)
    agents = daemons(family)
    for process in [driver, *(family if and_all else [])]:
        with contextlib.suppress(psutil.NoSuchProcess):
            process.kill()
    assert driver.wait() == -9
    assert left_over([each for each in family if each not in agents], seconds=60) == []
    return agents


@pytest.mark.slow
@pytest.mark.timeout(3000)
def test_killed_builds_go_on_to_the_same_shards(built: Path, spec: Path, tmp_path: Path) -> None:
    seeded = random.Random(20)
    expected = shards(built)
    plan = list(itertools.islice(itertools.cycle(STRUCK), KILLS))
    seeded.shuffle(plan)
    victims: list[str] = []
    agents: list[psutil.Process] = []
    completed = 0
    # A build that was struck goes on with what it left; when one completes, the next starts from nothing.
    out = tmp_path / "out"
    while plan or out.exists():
        log = tmp_path / f"log-{completed}.txt"
        # Plans, however little there is to do: workers of all kinds are to be met. The undisturbed build had but one.
        command = ("pipeline.build", "--spec", str(spec), "--out", str(out), *setting(resources__small_rows=0))
        with started(log, *command) as driver:
            while plan and wait_for_files(out, count_files(out) + seeded.randint(0, MOST_FILES), driver):
                time.sleep(seeded.random() * 0.3)
                if driver.poll() is not None:
                    break
                if plan[-1] in ("worker", "servant"):
                    if name := strike_worker(driver, plan[-1], seeded):
                        victims.append(name)
                        plan.pop()
                    continue
                agents += strike_driver(driver, and_all=plan[-1] == "everything")
                victims.append(plan.pop())
                break
            if (code := driver.wait()) == -9:
                continue
        assert code == 0, f"{victims}\n{log.read_text()}"
        assert shards(out) == expected, (completed, victims)
        shutil.rmtree(out)
        completed += 1
    print(f"{len(victims)} kills, {completed} builds completed: {victims}")
    assert len(victims) == KILLS and completed >= 1
    assert left_over(agents, seconds=120) == []
