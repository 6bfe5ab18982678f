"""A local Ray for the tests of this folder, started once."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from pipeline.engine.phase import Phase
from pipeline.engine.runner import Runner

Run = Callable[..., Runner]


@pytest.fixture(scope="session")
def local_ray() -> Iterator[dict[str, float]]:
    from pipeline.engine.cluster import connected
    from pipeline.engine.runner import configure_ray_data

    with connected(2, 200_000_000) as resources:
        configure_ray_data()
        yield resources


@pytest.fixture(scope="session")
def run_phases(local_ray: dict[str, float]) -> Run:
    """run_phases(folder, phase, …) brings phases to finished tables and returns the runner."""
    from pipeline.engine.progress import Progress
    from pipeline.engine.runner import Resources, start_tally
    from pipeline.engine.storage import Storage

    tally = start_tally()

    def run(out: Path | str, *phases: Phase, partitions: int = 4) -> Runner:
        import ray

        with Progress(lambda phase: ray.get(tally.get.remote(phase))) as progress:
            runner = Runner(Storage(str(out)), partitions, Resources(2.0, 0.0), progress, tally)
            for phase in phases:
                runner.run(phase)
            return runner

    return run
