"""Phases brought to finished tables on the tests' Ray."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from pipeline.engine.adoption import SAMPLE
from pipeline.engine.phase import Phase
from pipeline.engine.runner import Runner

Run = Callable[..., Runner]


@pytest.fixture(scope="session")
def run_phases(local_ray: dict[str, float]) -> Run:
    """run_phases(folder, phase, …) brings phases to finished tables and returns the runner."""
    from pipeline.engine.progress import Progress
    from pipeline.engine.resources import Resources
    from pipeline.engine.runner import start_tally
    from pipeline.engine.storage import Storage

    tally = start_tally()

    def run(out: Path | str, *phases: Phase, cpus: float = 2.0, sample: int = SAMPLE, small_rows: int = 0) -> Runner:
        import ray

        with Progress(lambda phase: ray.get(tally.get.remote(phase))) as progress:
            resources = Resources(cpus, 0.0, small_rows=small_rows)
            runner = Runner(Storage(str(out)), resources, progress, tally, sample=sample)
            for phase in phases:
                runner.run(phase)
            return runner

    return run
