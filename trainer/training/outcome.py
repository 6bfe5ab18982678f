"""What a run left in its folder, read without torch or a model."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from trainer.data.corpus import open_corpus
from trainer.recipe import Recipe

# Where a run reads and writes is no part of what it is: Ray Train's workers see absolute paths.
_PLACES = {"corpus", "out"}


@dataclass
class Outcome:
    """What a finished run left."""

    out: Path
    steps: int
    last: dict[str, Any] = field(default_factory=dict)
    evaluation: dict[str, Any] = field(default_factory=dict)


def read_outcome(out: Path) -> Outcome:
    """What a run in another process left in its folder; FileNotFoundError when it was never evaluated."""
    last = last_metrics(out)
    evaluation = json.loads((out / "evaluation.json").read_text(encoding="utf-8"))
    return Outcome(out, int(last.get("step", -1)) + 1, last, evaluation)


def last_metrics(out: Path) -> dict[str, Any]:
    """The last line of metrics.jsonl, {} when there is none."""
    path = out / "metrics.jsonl"
    lines = path.read_text(encoding="utf-8").splitlines() if path.is_file() else []
    return dict(json.loads(lines[-1])) if lines else {}


def finished(recipe: Recipe) -> Outcome | None:
    """The outcome, when this very recipe was trained to its last step on this very corpus, evaluated and exported.

    None when anything is missing or unreadable: the run itself finds out which. UserError for a corpus that is none.
    """
    out = Path(recipe.out)
    try:
        outcome = read_outcome(out)
        run, after = outcome.evaluation["run"], outcome.evaluation["after"]
        same = _identity(run["recipe"]) == _identity(recipe.model_dump(mode="json"))
        complete = outcome.steps == after["step"] == recipe.optimizer.steps and (out / "model/config.json").is_file()
        shards = run["corpus"]["shards"]
    except (OSError, KeyError, TypeError, ValueError):
        return None
    return outcome if same and complete and shards == open_corpus(recipe.corpus, out / "cache").hash else None


def nothing_to_do(outcome: Outcome) -> str:
    """One line for a run that is finished already."""
    return f"nothing to do: {outcome.out} was trained to step {outcome.steps} and evaluated"


def _identity(settings: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in settings.items() if name not in _PLACES}
