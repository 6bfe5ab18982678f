"""Train on a corpus's shards.

    python -m trainer.run --config recipes/demo.yaml --corpus out/demo
    torchrun --nproc-per-node 2 -m trainer.run --config recipes/tiny.yaml --corpus out/demo

Exit codes: 0 done, 2 the user's mistake (one line says which), 130 Ctrl-C, 143 SIGTERM with the steps done in a
checkpoint, 1 anything else.
"""

from __future__ import annotations

if __name__ == "__main__":
    # First, for all that is imported below takes a second.
    from trainer.parallel.signals import listen

    listen()

import json
import os
import time
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

# None of these loads torch: --help and a finished run answer at once.
from trainer.command import exit_codes, run_command
from trainer.errors import UserError
from trainer.recipe import Recipe, check_ranks, load_recipe
from trainer.training.outcome import finished, nothing_to_do, read_outcome
from trainer.training.summary import show

# Stopping a finished or a waiting run must not hang on tokenizer threads of forked loader workers.
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
# Threads that spin while they wait take the cores from whatever else runs: an evaluation of 13 s took 300.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
# One live line is enough: bars of the libraries inside (unpacking weights, writing files) would cut it up.
os.environ.setdefault("TQDM_DISABLE", "1")


class Launcher(StrEnum):
    """Who starts the ranks."""

    local = "local"
    ray = "ray"


app = typer.Typer(add_completion=False, rich_markup_mode=None, pretty_exceptions_enable=False)


@app.command()
def main(
    config: Annotated[
        str, typer.Option(help="Recipe: a YAML file, or the name of a packaged one, e.g. recipes/demo.yaml.")
    ],
    corpus: Annotated[
        str | None, typer.Option(help="Corpus folder, OUT of pipeline.build; OUT/latest names the version.")
    ] = None,
    out: Annotated[str | None, typer.Option(help="Run folder: checkpoints, metrics, evaluation, model.")] = None,
    set_: Annotated[
        list[str] | None,
        typer.Option("--set", help="Override a recipe field, e.g. --set optimizer.steps=20. Repeatable."),
    ] = None,
    resume: Annotated[
        str,
        typer.Option(
            help="auto: go on from the run folder's newest readable checkpoint, or start. PATH: from that checkpoint. "
            "none: start over, removing the run folder's checkpoints, metrics and model."
        ),
    ] = "auto",
    allow_changes: Annotated[
        bool, typer.Option("--allow-changes", help="Resume even if the corpus or the recipe is not the checkpoint's.")
    ] = False,
    launcher: Annotated[
        Launcher,
        typer.Option(
            help="local: this process (or torchrun's ranks). ray: Ray Train, on the cluster of the job this runs in or "
            "of RAY_ADDRESS, else on this machine."
        ),
    ] = Launcher.local,
    workers: Annotated[int, typer.Option(help="Ranks under --launcher ray.", min=1)] = 1,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Print parameters, plan and the time of one step; write only the cache.")
    ] = False,
) -> None:
    """Train an interleaved vision-language model on a corpus's shards: L = L_g + alpha L_d.

    Reads shards alone, resumes by itself, evaluates on held-out documents before and after, and leaves in the run
    folder: metrics.jsonl, tensorboard/, checkpoints/, evaluation.json and model/, which transformers can load.

    Under torchrun every rank runs this command; data.packs_per_step must be a multiple of their number.
    """
    overrides = list(set_ or [])
    overrides += [f"{key}={json.dumps(value)}" for key, value in (("corpus", corpus), ("out", out)) if value]
    with exit_codes():
        recipe = load_recipe(config, tuple(overrides))
        # Before torch is loaded and ranks wait for each other: all end at once, and a launcher has fewer to stop.
        check_ranks(recipe, _world())
        if dry_run:
            _describe(recipe)
        else:
            _run(recipe, config, resume, allow_changes, workers if launcher is Launcher.ray else 0)


def _world() -> int:
    """How many ranks a launcher says there are; UserError when it says nonsense."""
    text = os.environ.get("WORLD_SIZE", "1")
    if not text.isdecimal() or int(text) < 1:
        raise UserError(f"WORLD_SIZE={text!r} is no number of ranks; start several ranks with torchrun")
    return int(text)


def _describe(recipe: Recipe) -> None:
    from trainer.training.dry_run import describe_run

    for line in describe_run(recipe):
        typer.echo(line)


def _run(recipe: Recipe, config: str, resume: str, allow_changes: bool, ray_workers: int) -> None:
    """Train in this process, or with `ray_workers` > 0 under Ray; the first rank says what was found."""
    started = time.monotonic()
    first = os.environ.get("RANK", "0") == "0"
    if ray_workers and "WORLD_SIZE" in os.environ:
        raise UserError("--launcher ray starts its own ranks; run it without torchrun")
    alone = _world() == 1
    outcome = finished(recipe) if resume == "auto" and alone else None
    if outcome is not None:
        typer.echo(nothing_to_do(outcome))
    elif ray_workers:
        from trainer.parallel.ray_launch import train_on_ray

        train_on_ray(recipe, resume, allow_changes, ray_workers)
        outcome = read_outcome(Path(recipe.out))
    else:
        from trainer.parallel.ray_launch import train_here

        outcome = train_here(recipe, resume, allow_changes)
    if first:
        show(outcome, config, recipe.corpus, Console(width=max(100, Console().width)))
        typer.echo(f"done in {time.monotonic() - started:.0f} s: {outcome.out}")


if __name__ == "__main__":
    run_command(app)
