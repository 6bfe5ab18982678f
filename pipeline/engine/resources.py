"""What a build's operators may use: of the machine or cluster at hand, and what the spec gives each of them."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from pydantic import Field, model_validator

from stages.row_function import Settings


class OperatorSettings(Settings):
    """What one operator of a build asks of Ray for each of its tasks or actors; never part of a key."""

    cpus: float | None = Field(default=None, ge=0, le=4096)
    """CPUs of a task or actor, a number. Default: Ray's, one; half of one at most for an actor that holds a model, as
    what it sees is prepared on the same."""
    gpus: float | None = Field(default=None, ge=0, le=64)
    """GPUs of a task or actor, a number. Default: ours, one for what computes on them where there are any."""
    memory_megabytes: int | None = Field(default=None, ge=1, le=16_000_000)
    """Megabytes of memory that a task or actor takes beside its blocks: as many run at a time as fit. Default: Ray's,
    it is not asked."""
    batch_size: int | None = Field(default=None, ge=1, le=1_000_000)
    """Rows of a row function a call. Default: ours, what the function itself asks for."""
    min_workers: int | None = Field(default=None, ge=1, le=4096)
    """Fewest actors that hold a model, a number. Default: ours, one a GPU, else one a CPU."""
    max_workers: int | None = Field(default=None, ge=1, le=4096)
    """Most of them, a number: a pool grows with its queue up to it, and asks an autoscaling cluster for nodes.
    Default: ours, as many as GPUs come, else one a CPU."""

    @model_validator(mode="after")
    def _in_order(self) -> OperatorSettings:
        if self.min_workers and self.max_workers and self.min_workers > self.max_workers:
            raise ValueError(f"min_workers is {self.min_workers}, above max_workers, {self.max_workers}")
        return self

    @property
    def wants_workers(self) -> bool:
        """Whether it says anything of the tasks or actors themselves."""
        return self.model_copy(update={"batch_size": None}) != _UNSET


_UNSET = OperatorSettings()
# Requests in flight that are worth an actor of their own, and ranges that one is at at a time.
IN_FLIGHT_AN_ACTOR = 32
RANGES_AN_ACTOR = 16
# Times that Ray runs a task again whose worker or node died, before the runner looks at what is missing.
RETRIES = 1


@dataclass(frozen=True)
class Resources:
    """What the runner may use; never part of a key."""

    cpus: float
    gpus: float
    operators: Mapping[str, OperatorSettings] = field(default_factory=dict)
    small_rows: int = 0  # up to so many, one worker does a phase by itself

    def are_few(self, rows: int) -> bool:
        """Whether one worker is to do what reads so many rows by itself."""
        return 0 < self.small_rows >= rows

    def of(self, operator: str) -> OperatorSettings:
        """What the spec gives an operator."""
        return self.operators.get(operator, _UNSET)

    @property
    def batch_sizes(self) -> dict[str, int]:
        """Rows a call of the operators that are given another number than their own."""
        return {name: each.batch_size for name, each in self.operators.items() if each.batch_size is not None}

    def task(self, operator: str, *, gpu: bool = False) -> dict[str, Any]:
        """Ray's arguments for tasks of an operator; `gpu` for one that computes on a GPU where there is one."""
        return {"max_retries": RETRIES, **self._share(operator, gpu)}

    def _share(self, operator: str, gpu: bool) -> dict[str, Any]:
        """What a task or actor of an operator takes, where it is not what Ray gives by itself."""
        given = self.of(operator)
        found: dict[str, Any] = {}
        if given.cpus is not None:
            found["num_cpus"] = given.cpus
        gpus = given.gpus if given.gpus is not None else min(1.0, self.gpus) if gpu else 0.0
        if gpus:
            found["num_gpus"] = gpus
        if given.memory_megabytes is not None:
            found["memory"] = given.memory_megabytes * 1_000_000
        return found

    def pool(self, operator: str) -> dict[str, Any]:
        """Ray's arguments for the actors of an operator that holds a model.

        They leave a CPU at least to those that prepare what they see, which would wait for ever. On GPUs the pool
        begins with those that are there and grows with those that come.
        """
        # Here, as a spec is read and checked without Ray.
        from ray.data import ActorPoolStrategy

        given = self.of(operator)
        share = self._share(operator, gpu=True)
        gpus = share.get("num_gpus", 0)
        there = max(1, int(self.gpus / gpus)) if gpus and self.gpus else max(1, int(self.cpus))
        least = given.min_workers or min(there, given.max_workers or there)
        most = given.max_workers or (None if gpus else max(least, there))
        # Half a CPU each spreads them over nodes; nothing is meant by it, as they share CPUs with what feeds them.
        cpus = 0.0 if most is None else max(0.0, min(0.5, (self.cpus - 1) / most))
        return {
            "compute": ActorPoolStrategy(min_size=least, max_size=most),
            "num_cpus": cpus,
            "num_gpus": gpus,
            "max_restarts": 0,
            "max_task_retries": 0,
            **share,
        }

    def crew(self, operator: str, concurrency: int) -> int:
        """How many actors share so many requests in flight: by the CPUs at hand, unless the spec says."""
        given = self.of(operator)
        wanted = max(1, min(int(self.cpus), concurrency // IN_FLIGHT_AN_ACTOR))
        return min(given.max_workers or wanted, max(given.min_workers or 1, wanted))

    def errand(self, operator: str, members: int, ranges: int) -> dict[str, Any]:
        """Ray's arguments for a pool of so many actors that mostly wait for others, at many ranges at once.

        None takes more than its share of the `ranges`: the first that is there would be given all of them.
        """
        from ray.data import ActorPoolStrategy

        share = max(1, min(RANGES_AN_ACTOR, math.ceil(ranges / members)))
        pool = ActorPoolStrategy(
            size=members,
            max_tasks_in_flight_per_actor=share,
            max_concurrent_calls_per_actor=share,
            enable_true_multi_threading=True,
        )
        return {"compute": pool, **self.member(operator, members)}

    def member(self, operator: str, members: int) -> dict[str, Any]:
        """Ray's arguments for one of so many actors that mostly wait."""
        cpus = max(0.0, min(0.5, (self.cpus - 1) / members))
        return {"num_cpus": cpus, "max_restarts": 0, "max_task_retries": 0, **self._share(operator, gpu=False)}
