"""Held-out evaluation: ranks by definition, chance beside them, claims only where the numbers carry them."""

from __future__ import annotations

import io
import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from rich.console import Console
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from tests.trainer.conftest import tiny
from tests.trainer.fabricated import write_corpus
from trainer.data.corpus import open_corpus
from trainer.errors import NotFiniteError
from trainer.parallel.ray_launch import train_here
from trainer.protocols.retrieval_metrics import chance, change, claim_against_chance, ranks, summarize
from trainer.training.checkpoint import list_checkpoints
from trainer.training.outcome import Outcome
from trainer.training.summary import show


@settings(derandomize=True, deadline=None, max_examples=30)
@given(st.integers(1, 30), st.integers(2, 12), st.integers(0, 999))
def test_ranks_equal_sorting(queries: int, candidates: int, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    a, b = torch.randn(queries, 4, generator=generator), torch.randn(candidates, 4, generator=generator)
    targets = [i % candidates for i in range(queries)]
    also = [[(t + 1) % candidates] if i % 3 == 0 else [] for i, t in enumerate(targets)]
    for i, rank in enumerate(ranks(a, b, targets, also)):
        scores = (a[i].double() @ b.double().T).tolist()
        left = [s for j, s in enumerate(scores) if j not in also[i]]
        assert rank == 1 + sum(s > scores[targets[i]] for s in left)


def test_scores_that_are_not_finite_come_last() -> None:
    nan, inf = float("nan"), float("inf")
    broken = torch.full((4, 3), nan)
    found = ranks(broken, broken, list(range(4)), [[] for _ in range(4)])
    assert found == [4.0] * 4
    one = torch.ones(1, 1)
    assert ranks(one, torch.tensor([[0.1], [nan], [inf], [0.2]]), [0], [[]]) == [2.0]
    assert ranks(one, torch.tensor([[0.1], [nan], [inf], [0.2]]), [2], [[0]]) == [3.0]


def broken_run(corpus: Path, out: Path, *overrides: str) -> str:
    """What a run at a rate that no weight survives ends with."""
    rates = ("optimizer.learning_rate=1.0e+30", "optimizer.new_learning_rate=1.0e+30", "optimizer.warmup=0.0")
    with pytest.raises(NotFiniteError) as caught:
        train_here(tiny(corpus, out, *rates, *overrides), "auto", True)
    evaluation = json.loads((out / "evaluation.json").read_text(encoding="utf-8"))
    assert "after" not in evaluation and "change" not in evaluation and not (out / "model").exists()
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_a_broken_model_is_an_error_and_no_figure(corpus: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    # The last step breaks it, so that only the evaluation can tell; its checkpoint is no good.
    said = broken_run(corpus, out, "optimizer.steps=1")
    assert said.startswith("step 1: on held-out documents") and "no checkpoint is from before" in said


def test_a_run_that_breaks_names_the_last_good_checkpoint(corpus: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    train_here(tiny(corpus, out, "optimizer.steps=2", "checkpoint.every=1", "evaluation.tokens=1"), "auto", False)
    shutil.rmtree(out / "model")
    said = broken_run(corpus, out, "optimizer.steps=9", "checkpoint.every=1", "evaluation.tokens=1")
    assert said.startswith("from step 4 on loss or gradient is not finite (3 steps in a row)")
    good = out / "checkpoints" / "step-00000002"
    assert f"the last good checkpoint is {good}:" in said and good.is_dir()
    # Broken weights are kept once at most, and never push out what is good.
    assert [path.name for path in list_checkpoints(out / "checkpoints")] == ["step-00000003", "step-00000002"]
    again = tiny(corpus, out, "optimizer.steps=3", "checkpoint.every=1", "evaluation.tokens=1")
    assert train_here(again, str(good), True).steps == 3


def test_scores_are_not_rounded_by_autocast(corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[bool] = []

    def watched(*arguments: Any) -> list[float]:
        seen.append(torch.is_autocast_enabled("cpu"))
        return ranks(*arguments)

    monkeypatch.setattr("trainer.protocols.held_out.ranks", watched)
    overrides = ("parallel.precision=bfloat16", "optimizer.steps=1", "evaluation.tokens=1")
    outcome = train_here(tiny(corpus, tmp_path / "run", *overrides), "auto", False)
    assert seen == [False] * 6
    top = [item["score"] for example in outcome.evaluation["after"]["retrieval"]["image_to_sentence"]["examples"]
           for item in example["top"]]  # fmt: skip
    # bfloat16 has 8 bits: next to 1 its steps are 0.004.
    assert len(set(top)) > len({round(score / 0.004) for score in top})


def test_a_collapsed_model_scores_chance() -> None:
    same = torch.ones(9, 3)
    found = ranks(same, same, list(range(9)), [[] for _ in range(9)])
    assert found == [5.0] * 9
    assert summarize(found, 9).median_rank == chance(9, 9).median_rank == 5.0


def test_figures_and_chance() -> None:
    summary = summarize([1, 2, 6, 11], 20)
    assert (summary.n, summary.median_rank) == (4, 4.0)
    assert summary.mrr == pytest.approx((1 + 1 / 2 + 1 / 6 + 1 / 11) / 4)
    assert summary.recall == {"1": 0.25, "5": 0.5, "10": 0.75}
    expected = chance(4, 20)
    assert expected.recall == {"1": 0.05, "5": 0.25, "10": 0.5} and expected.median_rank == 10.5
    assert chance(4, 3).recall["5"] == 1.0
    assert summarize([], 0).n == 0


def test_claims_need_queries() -> None:
    assert claim_against_chance([1.0] * 10, 100, 30).startswith("no claim: 10 queries")
    assert claim_against_chance([1.0] * 40, 100, 30) == "better than chance"
    assert claim_against_chance([100.0] * 40, 100, 30) == "worse than chance"
    assert claim_against_chance([50.0, 51.0] * 20, 100, 30) == "not distinguishable from chance"
    found = change([50.0] * 40, [2.0] * 40, 100, 30)
    assert found.claim == "improved" and found.rank == pytest.approx(-0.48) and found.mrr == pytest.approx(0.48)
    assert change([2.0] * 40, [50.0] * 40, 100, 30).claim == "worse"
    assert change([5.0] * 40, [5.0] * 40, 100, 30).claim.startswith("no change")
    assert change([50.0] * 5, [2.0] * 5, 100, 30).claim.startswith("no claim")
    noisy = change([10.0, 20.0] * 20, [20.0, 10.0] * 20, 100, 30)
    assert noisy.claim.startswith("no change") and noisy.rank_low < 0 < noisy.rank_high


def test_nothing_held_out_is_said_and_not_divided_by(tmp_path: Path) -> None:
    out = write_corpus(tmp_path / "corpus", documents=6, held_out=0)
    outcome = train_here(tiny(out, tmp_path / "run", "optimizer.steps=1", "data.packs_per_step=1"), "auto", False)
    text = (outcome.out / "evaluation.json").read_text(encoding="utf-8")
    assert "NaN" not in text
    after = json.loads(text)["after"]
    assert after["perplexity"]["loss"] is None and after["generation"] is None
    assert after["retrieval"]["image_to_sentence"]["claim"].startswith("no claim: 0 queries")
    assert after["label_alignment"] == {"positions": 0, "pairs": 0}
    printed = io.StringIO()
    show(outcome, "tiny", "out", Console(file=printed, width=140))
    assert "nothing is held out: raise shard.held_out_fraction\n" in printed.getvalue()
    assert "chance" not in printed.getvalue() and "no claim" not in printed.getvalue()


def test_label_alignment_is_measured_on_held_out_positions(finished: Outcome) -> None:
    evaluation = json.loads((finished.out / "evaluation.json").read_text(encoding="utf-8"))
    before, after = (evaluation[moment]["label_alignment"] for moment in ("before", "after"))
    segments = evaluation["after"]["perplexity"]["segments"]
    for found in (before, after):
        assert segments < found["positions"] <= 4 * segments
        assert sum(map(sum, found["label_histogram"].values())) == found["pairs"] > 0
        assert 0 < found["label_error"] < 2 and 1 <= found["effective_rank"] <= found["positions"]
    assert before["label_histogram"] == after["label_histogram"]  # the same positions, the same labels
    assert after["label_error"] < before["label_error"]
    printed = io.StringIO()
    show(finished, "tiny", "out", Console(file=printed, width=140))
    assert f"label-alignment error {before['label_error']:.3f} -> {after['label_error']:.3f} (" in printed.getvalue()


def test_label_histograms_and_the_error_are_logged(finished: Outcome) -> None:
    line = json.loads((finished.out / "metrics.jsonl").read_text(encoding="utf-8").splitlines()[-1])
    assert all(len(counts) == 10 for counts in line["label_histogram"].values())
    events = EventAccumulator(str(finished.out / "tensorboard"))
    events.Reload()
    tags = events.Tags()
    groups = {f"label_histogram/{length}" for length in line["label_histogram"]}
    assert groups <= set(tags["histograms"]) and groups
    name = sorted(groups)[0]
    last = events.Histograms(name)[-1]
    assert last.histogram_value.num == sum(line["label_histogram"][name.partition("/")[2]])
    assert {"held_out/label_error", "held_out/loss", "label_error"} <= set(tags["scalars"])
    assert [event.step for event in events.Scalars("held_out/label_error")] == [0, 8]


def test_a_run_leaves_what_the_report_reads(corpus: Path, finished: Outcome) -> None:
    evaluation = json.loads((finished.out / "evaluation.json").read_text(encoding="utf-8"))
    assert set(evaluation) == {"before", "after", "change", "run"}
    opened = open_corpus(str(corpus))
    held = {opened.document(i).document_id for i, split in enumerate(opened.column("split")) if split == "held_out"}
    for moment, step in (("before", 0), ("after", 8)):
        found = evaluation[moment]
        assert found["step"] == step and found["held_out_documents"] == 6
        assert found["perplexity"]["perplexity"] > 1
        for direction in ("image_to_sentence", "sentence_to_image", "context_to_image"):
            figures = found["retrieval"][direction]
            assert figures["n"] == len(figures["ranks"]) > 0
            assert figures["chance"]["candidates"] == figures["candidates"]
            assert figures["claim"].startswith("no claim")
            for example in figures["examples"]:
                places = [example["query"], example["target"], *example["top"]]
                assert {place["document_id"] for place in places} <= held
    assert evaluation["after"]["perplexity"]["loss"] < evaluation["before"]["perplexity"]["loss"]
    assert evaluation["after"]["generation"]["image"]["document_id"] in held
    assert evaluation["run"]["corpus"]["shards"] == opened.hash
    assert list((finished.out / "tensorboard").glob("events.*"))
