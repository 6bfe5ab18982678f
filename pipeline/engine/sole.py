"""What is too small to be spread: one worker that lives as long as the build does all of a phase by itself.

A plan of Ray Data starts tasks, actors and an exchange, which cost seconds where the rows take moments. The same
functions make the same tables here, from the same stores; only who calls them differs.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Any

import pyarrow as pa
import ray

from pipeline.engine import warm
from pipeline.engine.key_range import KeyRange
from pipeline.engine.worker import Work, hide_unasked_gpus

# Of what a phase reads, beside the number of rows that the spec gives.
SMALL_BYTES = 32_000_000


class Sole:
    """The driver's end of the worker, which starts at the first phase that it is given."""

    def __init__(self) -> None:
        self._worker: Any = None

    def run(
        self, work: Work, units: Sequence[Any] | None, most: int, waiting: Callable[[], None]
    ) -> dict[str, list[dict[str, Any]]] | None:
        """Everything that is left of a phase: rows of warm.TOLD, by function. `units` are those of its exchange.

        None, and nothing done, where these come to more than `most` rows that something is asked of. `waiting` is
        called every second. What the phase's code raised is raised; RayActorError when the worker died, and the next
        call has another one.
        """
        if self._worker is None:
            # No CPU, as it is idle where others work. It dies with what a phase did to it, and is asked again.
            self._worker = ray.remote(num_cpus=0, max_restarts=0)(_Worker).remote()
        pending = [self._worker.run.remote(work, units, most)]
        try:
            while pending and not ray.wait(pending, timeout=1.0)[0]:
                waiting()
            told: dict[str, list[dict[str, Any]]] | None = ray.get(pending[0])
        except ray.exceptions.RayActorError:
            self._worker = None
            raise
        return told


class _Worker:
    """The process that does it."""

    def __init__(self) -> None:
        hide_unasked_gpus()

    def run(self, work: Work, units: Sequence[Any] | None, most: int) -> dict[str, list[dict[str, Any]]] | None:
        phase = work.phase
        met = None
        if phase.exchange is not None and units:
            met = pa.concat_tables([work.emit(unit) for unit in units])
            if phase.asks_exchanged and met.num_rows > most:
                return None
        if phase.errand is not None and met is not None and work.probe is None:
            warm.Errands(work, phase.errand.concurrency)(met)
        told: dict[str, list[dict[str, Any]]] = {}
        for step in phase.steps:
            if work.probe is not None and step.function.name not in work.probe.keys:
                continue
            rows = met if step.table is None else work.inputs[step.table].read(_hull(work.ranges))
            if rows is None or not rows.num_rows:
                continue
            asked = warm.ask(work, step, rows)
            began = time.monotonic()
            went = warm.compute(work, step, asked).to_pylist()
            if step.model:
                went[0] |= {warm.SECONDS: time.monotonic() - began, warm.ACTOR: "sole"}
            told[step.function.name] = went
        if work.probe is None:
            of_range = dict(warm.by_range(met)) if met is not None else {}
            for index in range(len(work.ranges)):
                work.run(index, of_range.get(index))
        return told


def _hull(ranges: Sequence[KeyRange]) -> KeyRange:
    return KeyRange(ranges[0].first, ranges[-1].last)
