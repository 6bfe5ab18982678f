"""Held-out evaluation: ranks by definition, chance beside them, claims only where the numbers carry them."""

from __future__ import annotations

import io
import json
import math
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
from trainer.protocols.retrieval_metrics import Standing, chance, standings, summarize
from trainer.training.checkpoint import list_checkpoints
from trainer.training.outcome import Outcome
from trainer.training.summary import show


def broken_run(corpus: Path, out: Path, *overrides: str) -> str:
    """What a run at a rate that no weight survives ends with."""
    rates = ("optimizer.learning_rate=1.0e+30", "optimizer.new_learning_rate=1.0e+30", "optimizer.warmup=0.0")
    with pytest.raises(NotFiniteError) as caught:
        train_here(tiny(corpus, out, *rates, *overrides), "auto", True)
    evaluation = json.loads((out / "evaluation.json").read_text(encoding="utf-8"))
    assert "after" not in evaluation and "change" not in evaluation and not (out / "model").exists()
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.slow
def test_a_broken_model_is_an_error_and_no_figure(corpus: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    # The last step breaks it, so that only the evaluation can tell; its checkpoint is no good.
    said = broken_run(corpus, out, "optimizer.steps=1")
    assert said.startswith("step 1: on held-out documents") and "no checkpoint is from before" in said


@pytest.mark.slow
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

    def watched(*arguments: Any) -> list[Standing]:
        seen.append(torch.is_autocast_enabled("cpu"))
        return standings(*arguments)

    monkeypatch.setattr("trainer.protocols.held_out.standings", watched)
    overrides = ("parallel.precision=bfloat16", "optimizer.steps=1", "evaluation.tokens=1")
    outcome = train_here(tiny(corpus, tmp_path / "run", *overrides), "auto", False)
    assert seen == [False] * 6
    top = [item["score"] for example in outcome.evaluation["after"]["retrieval"]["image_to_sentence"]["examples"]
           for item in example["top"]]  # fmt: skip
    # bfloat16 has 8 bits: next to 1 its steps are 0.004.
    assert len(set(top)) > len({round(score / 0.004) for score in top})


def test_figures_of_ranks_without_ties() -> None:
    summary = summarize([Standing(rank - 1, 1, 1, 0.5) for rank in (1, 2, 6, 11)], 20)
    assert summary.median_rank == 4.0 and summary.recall == {"1": 0.25, "5": 0.5, "10": 0.75}
    assert summary.mrr == pytest.approx((1 + 1 / 2 + 1 / 6 + 1 / 11) / 4)
    expected = chance([1] * 4, 20)
    assert expected.recall == pytest.approx({"1": 0.05, "5": 0.25, "10": 0.5}) and expected.median_rank == 10.5
    assert chance([1] * 4, 3).recall["5"] == pytest.approx(1.0)
    assert math.isnan(summarize([], 0).mrr)


@settings(derandomize=True, deadline=None, max_examples=30)
@given(st.integers(1, 30), st.integers(2, 12), st.integers(0, 999))
def test_standings_equal_sorting(queries: int, candidates: int, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    a, b = torch.randn(queries, 4, generator=generator), torch.randn(candidates, 4, generator=generator)
    right = [sorted({i % candidates, (i * i) % candidates}) for i in range(queries)]
    for i, found in enumerate(standings(a, b, right)):
        scores = (a[i].double() @ b.double().T).tolist()
        order = sorted(range(candidates), key=lambda j: -scores[j])
        assert found.rank == 1 + min(order.index(j) for j in right[i])


def test_nothing_held_out_is_said_and_not_divided_by(tmp_path: Path) -> None:
    out = write_corpus(tmp_path / "corpus", documents=6, held_out=0)
    outcome = train_here(tiny(out, tmp_path / "run", "optimizer.steps=1", "data.packs_per_step=1"), "auto", False)
    text = (outcome.out / "evaluation.json").read_text(encoding="utf-8")
    assert "NaN" not in text
    after = json.loads(text)["after"]
    assert after["perplexity"]["loss"] is None and after["generation"] is None
    assert after["retrieval"]["image_to_sentence"]["claim"] == "no claim: too few queries, pages or candidates"
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
    assert set(evaluation) == {"before", "after", "change", "run", "questions"}
    questions = evaluation["questions"]
    opened = open_corpus(str(corpus))
    held = {opened.document(i).document_id for i, split in enumerate(opened.column("split")) if split == "held_out"}
    for moment, step in (("before", 0), ("after", 8)):
        found = evaluation[moment]
        assert found["questions"] == questions["digest"]
        perplexity = found["perplexity"]
        assert len(perplexity["page_losses"]) == len(perplexity["page_targets"]) == 6
        assert perplexity["interval"] == [None, None]
        assert sum(perplexity["page_targets"]) == perplexity["target_tokens"]
        assert sum(perplexity["page_losses"]) / perplexity["target_tokens"] == pytest.approx(perplexity["loss"])
        assert found["step"] == step and found["held_out_documents"] == 6
        assert found["perplexity"]["perplexity"] > 1
        for direction in ("image_to_sentence", "sentence_to_image", "context_to_image"):
            figures = found["retrieval"][direction]
            assert figures["n"] == len(figures["ranks"]) > 0
            asked = questions["directions"][direction]
            assert len(asked["queries"]) == len(asked["pages"]) == figures["n"]
            assert figures["candidates"] == len(questions[asked["among"]])
            assert figures["pages"] == len(set(asked["pages"])) <= 6
            assert figures["claim"] == "no claim: too few queries, pages or candidates"
            assert figures["intervals"]["mrr"] == [None, None]
            for example in figures["examples"]:
                assert any(answer["right"] for answer in example["top"]) == (example["rank"] <= len(example["top"]))
                places = [example["query"], *example["top"]]
                assert {place["document_id"] for place in places} <= held
    assert evaluation["after"]["perplexity"]["loss"] < evaluation["before"]["perplexity"]["loss"]
    assert evaluation["after"]["generation"]["image"]["document_id"] in held
    assert set(evaluation["change"]) == {*questions["directions"], "perplexity"}
    assert all(changed["claim"].startswith("no claim") for changed in evaluation["change"].values())
    assert evaluation["run"]["corpus"]["shards"] == opened.hash
    assert list((finished.out / "tensorboard").glob("events.*"))


@pytest.mark.slow
def test_enough_pages_carry_claims_and_intervals(tmp_path: Path) -> None:
    out = write_corpus(tmp_path / "corpus", documents=34, held_out=20)
    overrides = ("optimizer.steps=12", "optimizer.learning_rate=1.0e-2", "evaluation.minimum_queries=5")
    outcome = train_here(tiny(out, tmp_path / "run", *overrides, "evaluation.tokens=9000"), "auto", False)
    evaluation = json.loads((outcome.out / "evaluation.json").read_text(encoding="utf-8"))
    found = evaluation["after"]["retrieval"]["context_to_image"]
    assert found["pages"] == 20 and not found["claim"].startswith("no claim")
    low, high = found["intervals"]["mrr"]
    assert low < found["mrr"] < high
    perplexity = evaluation["after"]["perplexity"]
    assert perplexity["interval"][0] < perplexity["perplexity"] < perplexity["interval"][1]
    assert evaluation["change"]["perplexity"]["claim"] == "lower" and evaluation["change"]["perplexity"]["high"] < 0
    printed = io.StringIO()
    show(outcome, "tiny", "out", Console(file=printed, width=140))
    assert f"{low:.3f} to {high:.3f}" in printed.getvalue()
    assert "before to after: lower (p < 0.001)" in printed.getvalue()


@pytest.mark.slow
def test_other_questions_are_not_compared(corpus: Path, tmp_path: Path) -> None:
    first = tiny(corpus, tmp_path / "run", "optimizer.steps=1")
    train_here(first, "auto", False)
    asked = json.loads((tmp_path / "run" / "evaluation.json").read_text(encoding="utf-8"))
    more = tiny(corpus, tmp_path / "run", "optimizer.steps=2", "evaluation.queries=3")
    outcome = train_here(more, "auto", True)
    evaluation = outcome.evaluation
    assert evaluation["before"] == asked["before"] and asked["change"]
    assert evaluation["after"]["questions"] != evaluation["before"]["questions"]
    assert evaluation["change"] == {}
    printed = io.StringIO()
    show(outcome, "tiny", "out", Console(file=printed, width=140))
    assert "other questions were asked" in printed.getvalue() and "before to after" not in printed.getvalue()
    assert "│ before" not in printed.getvalue() and "│ chance" in printed.getvalue()
