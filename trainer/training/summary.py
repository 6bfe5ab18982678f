"""The last lines of a run: loss, retrieval table, one picture's text, and the commands to go on from there."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from trainer.training.log import counted
from trainer.training.outcome import Outcome

TITLES = {
    "image_to_sentence": "image -> sentence",
    "sentence_to_image": "sentence -> image",
    "context_to_image": "context -> image",
}


def show(outcome: Outcome, config: str, corpus: str, console: Console) -> None:
    """Print what a run found; figures of chance beside those of the model, and no claim that a test does not carry."""
    last, evaluation = outcome.last, outcome.evaluation
    if last:
        console.print(
            f"last loss {last['loss']:.4f} at step {outcome.steps} "
            f"(L_g {last['generative']:.4f}, L_d {last['structure']:.4f})"
        )
    before, after = evaluation.get("before"), evaluation.get("after")
    if after and not after["held_out_documents"]:
        console.print("nothing is held out: raise shard.held_out_fraction")
    elif after:
        if before and before.get("questions") != after.get("questions"):
            console.print("before training other questions were asked, of another corpus or recipe: not compared")
            before = None
        _perplexity(before, after, evaluation.get("change", {}).get("perplexity"), console)
        _label_alignment(before, after, console)
        console.print(retrieval_table(before, after))
        for name, title in TITLES.items():
            console.print(claims(title, after["retrieval"][name], evaluation.get("change", {}).get(name)))
        _generation(before, after, console)
    for line in next_commands(outcome.out, config, corpus):
        console.print(line, soft_wrap=True, highlight=False)


def retrieval_table(before: dict[str, Any] | None, after: dict[str, Any]) -> Table:
    """Held-out retrieval before and after training, with n, pages, candidates, chance, and intervals over pages."""
    cutoffs = list(after["retrieval"]["image_to_sentence"]["recall"])
    table = Table(title="held-out retrieval, 95% intervals over pages", title_justify="left")
    for column in ("", "", "n", "pages", "among", "median rank", "MRR", *(f"R@{k}" for k in cutoffs)):
        table.add_column(column, justify="left" if not column else "right")
    for name, title in TITLES.items():
        found = after["retrieval"][name]
        rows = [("chance", found["chance"]), *([("before", before["retrieval"][name])] if before else [])]
        for label, figures in [*rows, ("after", found)]:
            wide = figures.get("intervals") or {}
            cells = [
                _cell(figures["median_rank"], wide.get("median_rank"), 1),
                _cell(figures["mrr"], wide.get("mrr"), 3),
            ]
            cells += [_cell(figures["recall"][k], wide.get("recall", {}).get(k), 3) for k in cutoffs]
            first = label == "chance"
            count = [str(found["n"]), str(found.get("pages", "-")), str(found["candidates"])] if first else [""] * 3
            table.add_row(title if first else "", label, *count, *cells, end_section=label == "after")
    return table


def claims(title: str, found: dict[str, Any], changed: dict[str, Any] | None) -> str:
    """What tests say of one direction after training, and of what training changed."""
    said = f"{title}: {found['claim']}{_p(found.get('ahead'))}"
    return f"{said}; before to after: {changed['claim']}{_p(changed)}" if changed else said


def _p(tested: dict[str, Any] | None) -> str:
    value = (tested or {}).get("p")
    return "" if value is None or math.isnan(value) else f" (p {'< 0.001' if value < 0.001 else f'{value:.3f}'})"


def _number(value: float | None, digits: int) -> str:
    return "-" if value is None or math.isnan(value) else f"{value:.{digits}f}"


def _range(wide: Sequence[float | None] | None, digits: int) -> str:
    """An interval in words, "" where there is none."""
    low, high = wide or (None, None)
    if low is None or high is None or math.isnan(low):
        return ""
    return f"{low:.{digits}f} to {high:.{digits}f}"


def _cell(value: float | None, wide: Sequence[float | None] | None, digits: int) -> str:
    """A figure, and below it its interval."""
    return "\n".join(filter(None, (_number(value, digits), _range(wide, digits))))


def _perplexity(
    before: dict[str, Any] | None, after: dict[str, Any], changed: dict[str, Any] | None, console: Console
) -> None:
    found = after["perplexity"]
    if found["loss"] is None:
        console.print("held-out perplexity: no held-out text")
        return
    start = f"{before['perplexity']['perplexity']:.2f} -> " if before and before["perplexity"]["loss"] else ""
    wide = _range(found.get("interval"), 2)
    console.print(
        f"held-out perplexity {start}{found['perplexity']:.2f}{f', 95% {wide}' if wide else ''} "
        f"({counted(found['target_tokens'], 'token')} of {counted(after['held_out_documents'], 'document')})"
        + (f"; before to after: {changed['claim']}{_p(changed)}" if changed else "")
    )


def _label_alignment(before: dict[str, Any] | None, after: dict[str, Any], console: Console) -> None:
    found = after.get("label_alignment", {})
    if "label_error" not in found:
        return
    earlier = (before or {}).get("label_alignment", {}).get("label_error")
    start = "" if earlier is None else f"{earlier:.3f} -> "
    console.print(
        f"held-out label-alignment error {start}{found['label_error']:.3f} "
        f"({counted(found['pairs'], 'pair')} of {counted(found['positions'], 'position')})"
    )


def _generation(before: dict[str, Any] | None, after: dict[str, Any], console: Console) -> None:
    found = after["generation"]
    if not found:
        return
    image = found["image"]
    console.print(f"held-out picture {image['sha256'][:12]} of {image['url']}", soft_wrap=True)
    for said in found.get("said", ()):
        console.print(f"  its page says: {said!r}", soft_wrap=True, markup=False)
    if before and before.get("generation"):
        console.print(f"  before: {before['generation']['text']!r}", soft_wrap=True, markup=False)
    console.print(f"  after:  {found['text']!r}", soft_wrap=True, markup=False)


def next_commands(out: Path, config: str, corpus: str) -> list[str]:
    """What to type next."""
    again = f"python -m trainer.run --config {config} --corpus {corpus} --out {out}"
    return [
        "go on from here:",
        f"  tensorboard --logdir {out}/tensorboard",
        f"  {again} --set optimizer.steps=400 --allow-changes",
        f"  torchrun --nproc-per-node 2 -m trainer.run --config {config} --corpus {corpus} --out {out}-2 "
        "--set data.packs_per_step=2",
        f"  python -m trainer.generate --model {out}/model --image PICTURE",
    ]
