"""The same loop under Ray Train: one worker a rank, on the cluster that the driver is connected to."""

from __future__ import annotations

import os
import secrets
import signal
import sys
from pathlib import Path
from typing import Any

from trainer.errors import CorruptRecordError, NoSpace, NotFiniteError, Terminated, UserError
from trainer.parallel.ranks import start
from trainer.recipe import Recipe
from trainer.training.loop import train
from trainer.training.outcome import Outcome, finished, nothing_to_do

# What says that there is a cluster to join: its address, or being one of its jobs.
_CLUSTER = ("RAY_ADDRESS", "RAY_JOB_CONFIG_JSON_ENV_VAR")
# What ends a run with a message of its own; exception types do not survive the way from a worker to the driver.
_SAID = {kind.__name__: kind for kind in (UserError, CorruptRecordError, NotFiniteError, NoSpace, Terminated)}


def train_here(recipe: Recipe, resume: str, allow_changes: bool) -> Outcome:
    """Run in this process, one rank of however many its environment says; raises as `train`.

    Where there are several, the first says whether the run is finished already: each in its own words, some would
    leave and the others wait for them.
    """
    ranks = start(recipe.parallel)
    try:
        done = ranks.told(lambda: finished(recipe)) if ranks.world > 1 and resume == "auto" else None
        if done is not None and ranks.first:
            print(nothing_to_do(done))
        return done or train(recipe, ranks, resume, allow_changes)
    finally:
        ranks.close()


def _worker(settings: dict[str, Any]) -> None:
    """What every Ray Train worker runs; Ray has started the process group.

    The user's mistakes, corrupt records, broken models, full disks and SIGTERM come back as text, by _SAID.
    """
    recipe = Recipe.model_validate_json(settings["recipe"])
    outcome = Path(settings["outcome"])
    try:
        train_here(recipe, settings["resume"], settings["allow_changes"])
    except tuple(_SAID.values()) as error:
        outcome.write_text(f"{type(error).__name__}\n{error}", encoding="utf-8")
        raise


def _prepare_ray() -> None:
    """Set what Ray reads when it is imported, as pipeline/__init__.py does for builds.

    A local Ray gets a token of its own: others stay out, and none is written to ~/.ray, where it would turn
    authentication on for every later `ray start` of this user.
    """
    if "ray" in sys.modules:
        return
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    if not any(os.environ.get(name) for name in (*_CLUSTER, "RAY_AUTH_MODE")):
        os.environ |= {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": secrets.token_hex(32)}


def train_on_ray(recipe: Recipe, resume: str, allow_changes: bool, workers: int) -> None:
    """Run under Ray Train's TorchTrainer with `workers` ranks, a GPU each where the cluster has that many.

    `out` and `corpus` must be storage that every node sees. Raises what `train` raises.
    """
    _prepare_ray()
    import ray
    from ray.train import RunConfig, ScalingConfig
    from ray.train.torch import TorchConfig, TorchTrainer

    # Workers have working directories of their own.
    out, corpus = Path(recipe.out).absolute(), Path(recipe.corpus).absolute()
    recipe = recipe.model_copy(update={"out": str(out), "corpus": str(corpus)})
    out.mkdir(parents=True, exist_ok=True)
    outcome = out / "ray" / "outcome"
    outcome.parent.mkdir(exist_ok=True)
    outcome.unlink(missing_ok=True)
    started = not ray.is_initialized()
    if started:
        # A Ray that happens to run on this machine is joined only when the environment says so, as a build does it.
        address = None if any(os.environ.get(name) for name in _CLUSTER) else "local"
        # Ray answers SIGTERM with frames of its own and exit code 15.
        handlers = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
        ray.init(address=address, include_dashboard=False, log_to_driver=True, configure_logging=False)
        for number, handler in handlers.items():
            signal.signal(number, handler)
    try:
        resources: dict[str, float] = ray.cluster_resources()  # type: ignore[no-untyped-call]  # ray's
        gpus = int(resources.get("GPU", 0)) >= workers
        trainer = TorchTrainer(
            _worker,
            train_loop_config={
                "recipe": recipe.model_dump_json(),
                "resume": resume,
                "allow_changes": allow_changes,
                "outcome": str(outcome),
            },
            torch_config=TorchConfig(backend="nccl" if gpus else "gloo"),
            scaling_config=ScalingConfig(num_workers=workers, use_gpu=gpus),
            run_config=RunConfig(name=recipe.name, storage_path=str(out / "ray")),
        )
        try:
            trainer.fit()
        except Exception:
            if outcome.is_file():
                kind, message = outcome.read_text(encoding="utf-8").split("\n", 1)
                raise _SAID[kind](message) from None
            raise
    finally:
        if started:
            ray.shutdown()
