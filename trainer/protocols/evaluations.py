"""evaluation.json of a run: one entry a moment, and what changed between the first and the last."""

from __future__ import annotations

import json
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

from trainer.data.shards import ShardCorpus
from trainer.model.interleaved import InterleavedForCausalLM
from trainer.protocols.held_out import Evaluator
from trainer.protocols.retrieval_metrics import change, loss_change
from trainer.training.log import RunLog, plain

AFTER = "after"


class Evaluations:
    """Evaluates, and keeps what was found; the first rank writes the file."""

    def __init__(self, out: Path, evaluator: Evaluator, log: RunLog) -> None:
        self.path, self.evaluator, self.log = out / "evaluation.json", evaluator, log
        self.first = evaluator.peers.first
        self.results: dict[str, Any] = {}
        if self.path.is_file():
            self.results = json.loads(self.path.read_text(encoding="utf-8"))

    def record(self, moment: str, step: int, model: InterleavedForCausalLM) -> None:
        """Evaluate on all ranks; raises as Evaluator.run."""
        started = time.monotonic()
        found = self.evaluator.run(model)
        seconds = round(time.monotonic() - started, 2)
        self.results["questions"] = self.evaluator.questions
        self.results[moment] = {"step": step, "seconds": seconds, **found}
        self._write()
        loss = found["perplexity"]["loss"]
        self.log.evaluation(step, {"loss": loss, **found["label_alignment"]})
        shown = "no held-out text" if loss is None else f"held-out loss {loss:.4f}"
        self.log.say(f"evaluation {moment}: {shown} ({seconds:.0f} s)")

    def reopen(self) -> None:
        """Forget the end of a run that trains on: whatever stops it, what was found of older weights is not its end."""
        for name in (AFTER, "change", "run"):
            self.results.pop(name, None)
        self._write()

    def finish(self, corpus: ShardCorpus, settings: dict[str, Any], seconds: float) -> None:
        """Add what changed, the recipe and the corpus."""
        before, after = self.results.get("before"), self.results.get(AFTER)
        if before and after:
            self.results["change"] = self._change(before, after)
        self.results["run"] = {
            "recipe": settings,
            "corpus": {"folder": str(corpus.folder), "version": corpus.version, "shards": corpus.hash},
            "seconds": round(seconds, 1),
        }
        self._write()

    def _change(self, before: dict[str, Any], after: dict[str, Any]) -> dict[str, Any]:
        """What training changed, by page: of each direction of retrieval and of the perplexity.

        Nothing where the beginning was asked other questions, of another corpus or by another recipe.
        """
        if before.get("questions") != after["questions"]:
            return {}
        minimum = self.evaluator.recipe.evaluation.minimum_queries
        found = {
            name: change(
                before["retrieval"][name]["aheads"],
                figures["aheads"],
                self.evaluator.held_out.questions.directions[name].pages,
                minimum,
            )
            for name, figures in after["retrieval"].items()
        }
        first, last = before["perplexity"], after["perplexity"]
        found["perplexity"] = loss_change(first["page_losses"], last["page_losses"], last["page_targets"])
        return {name: asdict(claim) for name, claim in found.items()}

    def _write(self) -> None:
        if not self.first:
            return
        temporary = self.path.with_suffix(".tmp")
        temporary.write_text(json.dumps(plain(self.results), indent=1), encoding="utf-8")
        temporary.replace(self.path)
