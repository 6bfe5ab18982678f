"""What a trainer left beside the corpus: curves of its metrics file and answers of its evaluation.

Read as plain files (OUT/train/metrics.jsonl, OUT/train/evaluation.json): the trainer is another house. A run belongs
to the version it was trained on, which its evaluation names.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from functools import partial
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from pipeline.corpus.version import Corpus
from pipeline.engine.aggregates import Aggregate, Rows
from pipeline.report.data import Chart, Curve, Direction, Picture, Ranks, Retrieval, Retrieved
from pipeline.report.pictures import thumbnail

RUN = "train"
_CHARTS = (
    ("Loss", "nats", ("loss", "generative")),
    ("Structure loss", "mean square", ("structure",)),
    ("Effective rank of the retrieval vectors", "dimensions", ("effective_rank",)),
)
_DIRECTIONS = {
    "image_to_sentence": "A picture finds its sentence",
    "sentence_to_image": "A sentence finds its picture",
    "context_to_image": "The text before it finds a picture",
}
_EXAMPLES = 2
_ANSWERS = 4
_SIDE = 132  # pixels


def note(corpus: Corpus) -> str:
    """Why what a trainer left here is not shown, "" when it is, or when nothing was trained here."""
    found = _evaluation(corpus)
    version = _version(found)
    if version == corpus.version:
        return ""
    if version:
        return f"{RUN}/ holds a run on version {version}, not on this one: its curves and retrieval are not shown."
    # A run that goes on forgets its end, and with it its corpus.
    there = bool(found) or _read(corpus, "metrics.jsonl") is not None
    return f"The run in {RUN}/ is not finished: its curves and retrieval are not shown." if there else ""


def _read(corpus: Corpus, name: str) -> str | None:
    try:
        return corpus.storage.read(f"{RUN}/{name}").decode()
    except FileNotFoundError:
        return None


def _evaluation(corpus: Corpus) -> dict[str, Any]:
    """What the trainer found, {} when it found nothing."""
    return dict(json.loads(_read(corpus, "evaluation.json") or "{}"))


def _version(evaluation: Mapping[str, Any]) -> str:
    """The version that a finished run was trained on, "" for others."""
    return str(evaluation.get("run", {}).get("corpus", {}).get("version", ""))


def charts(corpus: Corpus) -> list[Chart]:
    """Training curves; none when nothing was trained on this version."""
    text = _read(corpus, "metrics.jsonl")
    if text is None or _version(_evaluation(corpus)) != corpus.version:
        return []
    rows = [json.loads(line) for line in text.splitlines() if line.strip()]
    found = []
    for title, unit, names in _CHARTS:
        curves = [Curve(name, points) for name in names if (points := _points(rows, name))]
        if curves:
            found.append(Chart(title, unit, curves))
    return found


def _points(rows: Iterable[Mapping[str, Any]], name: str) -> list[tuple[float, float]]:
    return [
        (float(row["step"]), float(row[name]))
        for row in rows
        if isinstance(row.get(name), int | float) and math.isfinite(row[name])
    ]


def retrieval(corpus: Corpus, shards: Rows) -> list[Direction]:
    """Retrieval among the held-out documents: figures by direction, and the trained model's best answers to some.

    None when nothing was trained on this version.
    """
    evaluation = _evaluation(corpus)
    if _version(evaluation) != corpus.version:
        return []
    measured = (evaluation.get("after") or {}).get("retrieval", {})
    asked = {name: measured[name].get("examples", [])[:_EXAMPLES] for name in _DIRECTIONS if name in measured}
    wanted = {
        item["sha256"]
        for examples in asked.values()
        for example in examples
        for item in (example["query"], *example["top"][:_ANSWERS])
        if item.get("sha256")
    }
    pictures = _pictures(shards, wanted)
    return [
        _direction(name, evaluation, [_example(example, pictures) for example in examples])
        for name, examples in asked.items()
    ]


def _direction(name: str, evaluation: Mapping[str, Any], examples: Sequence[Retrieval]) -> Direction:
    after = evaluation["after"]["retrieval"][name]
    earlier = evaluation.get("before") or {}
    # Figures of other questions, of another corpus or recipe, do not compare.
    same = earlier.get("questions") == evaluation["after"].get("questions")
    before = earlier.get("retrieval", {}).get(name) if same else None
    changed = evaluation.get("change", {}).get(name)
    moments = [("chance", after["chance"]), *([("before", before)] if before else []), ("after", after)]
    return Direction(
        title=_DIRECTIONS[name],
        n=after["n"],
        candidates=after["candidates"],
        pages=after.get("pages"),
        claim=after["claim"] + (f"; before to after: {changed['claim']}" if changed else ""),
        ranks=[_ranks(label, found) for label, found in moments],
        examples=examples,
    )


def _ranks(label: str, found: Mapping[str, Any]) -> Ranks:
    """Figures of one moment; chance has no intervals, nor have runs on few pages."""
    wide = found.get("intervals") or {}
    return Ranks(
        label,
        found["median_rank"],
        found["mrr"],
        found["recall"],
        _interval(wide.get("median_rank")),
        _interval(wide.get("mrr")),
        {cutoff: _interval(bounds) for cutoff, bounds in wide.get("recall", {}).items()},
    )


def _interval(wide: Sequence[float | None] | None) -> tuple[float, float] | None:
    low, high = wide or (None, None)
    return None if low is None or high is None else (low, high)


def _pictures(shards: Rows, wanted: set[str]) -> dict[str, Picture | None]:
    if not wanted:
        return {}
    (found,) = shards.aggregate(Aggregate(partial(_shown, sorted(wanted)), _once))
    return {row["sha256"]: thumbnail(row["bytes"], _SIDE, row["alt"]) for row in found.to_pylist()}


def _shown(wanted: Sequence[str], shard: pa.Table) -> pa.Table:
    """Columns sha256, bytes and alt of the pictures of a shard that are wanted."""
    about = shard.column("image_info").combine_chunks().flatten()
    names = pc.struct_field(about, "sha256")
    places = pc.indices_nonzero(pc.is_in(names, value_set=pa.array(wanted, pa.string())))
    pictures = shard.column("images").combine_chunks().flatten().take(places)
    alt = pc.fill_null(pc.struct_field(about, "alt").take(places), "")
    return _once(pa.table({"sha256": names.take(places), "bytes": pc.struct_field(pictures, "bytes"), "alt": alt}))


def _once(pictures: pa.Table) -> pa.Table:
    """Each picture once, as the first that shows it has it."""
    first: dict[str, int] = {}
    for place, name in enumerate(pictures.column("sha256").to_pylist()):
        first.setdefault(name, place)
    return pictures.take(pa.array(first.values(), pa.int64()))


def _example(example: Mapping[str, Any], pictures: Mapping[str, Picture | None]) -> Retrieval:
    answers: Sequence[Mapping[str, Any]] = example["top"][:_ANSWERS]
    query = example["query"]
    return Retrieval(
        query=f"{query.get('text') or 'this picture'} (best right answer at rank {example['rank']:g})",
        picture=pictures.get(query.get("sha256", "")),
        results=[
            Retrieved(
                text=answer.get("text") or answer["url"].rsplit("/", 1)[-1],
                picture=pictures.get(answer.get("sha256", "")),
                score=float(answer["score"]),
                correct=bool(answer.get("right")),
            )
            for answer in answers
        ],
    )
