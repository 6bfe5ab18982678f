"""The dataset card: README.md of a corpus version, Markdown with Hugging Face front matter.

Fields of the front matter: https://github.com/huggingface/hub-docs/blob/main/datasetcard.md
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa
import yaml

from pipeline.corpus.funnel import FunnelRow
from pipeline.corpus.words import CONSENT_RULES, rule_words
from schemas.contract import identity
from schemas.negative import KINDS as NEGATIVE_KINDS
from schemas.shard import MATCH_KINDS, SHARD, SPLITS

# Hugging Face's buckets: upper bound of the number of rows, and the tag.
SIZES = [
    (1_000, "n<1K"),
    (10_000, "1K<n<10K"),
    (100_000, "10K<n<100K"),
    (1_000_000, "100K<n<1M"),
    (10_000_000, "1M<n<10M"),
    (100_000_000, "10M<n<100M"),
    (1_000_000_000, "100M<n<1B"),
    (10_000_000_000, "1B<n<10B"),
    (100_000_000_000, "10B<n<100B"),
    (1_000_000_000_000, "100B<n<1T"),
]
# Hosts and licences that are named.
MOST_NAMES = 15


@dataclass(frozen=True)
class Frequent:
    """The most frequent names, and what all others come to."""

    names: Sequence[tuple[str | None, int]]  # the most frequent first
    others: int = 0  # names left out
    rest: int = 0  # what they come to

    @staticmethod
    def of(ranked: pa.Table) -> Frequent:
        """From the answer of a pipeline.engine.aggregates.Ranking."""
        rows = list(zip(*(column.to_pylist() for column in ranked.columns), strict=True))
        alone = [(name, n) for name, n, others in rows if others is None]
        last = [(n, others) for _, n, others in rows if others is not None]
        rest, others = last[0] if last else (0, 0)
        return Frequent(alone, others, rest)


@dataclass(frozen=True)
class CardSummary:
    """What the card says; everything is deterministic except `built`, which stays out when None."""

    name: str  # of the spec
    version: str
    spec: str  # the resolved spec, YAML
    documents: int
    images: int
    sentences: int
    matches: Sequence[tuple[str, int]]  # images matched in each way, in words
    distances: Sequence[tuple[str, int]]  # matched images by the nodes to their sentence
    own_captions: str  # of the images with a caption, how many are matched to it
    negatives: int
    image_bytes: int
    shards: int
    shard_bytes: int
    splits: Mapping[str, int]  # documents by split
    languages: Mapping[str | None, int]  # documents by ISO 639-1
    licenses: Frequent  # documents by licence URL, None without one
    hosts: Frequent  # documents by host
    funnel: Sequence[FunnelRow]  # in the order of the pipeline
    encoders: Mapping[str, str]  # vector name ("primary image", "shared", ...) to encoder and weights
    libraries: Mapping[str, str] = field(default_factory=dict)  # distribution to version
    limits: Sequence[str] = ()  # sentences
    robots_checked: bool = False  # the source was crawled, so every page carries a robots verdict
    signals: Sequence[str] = ()  # what was kept to besides robots.txt, in words


def card(summary: CardSummary) -> str:
    """The card as Markdown, ending in one newline. Texts of pages (licences, hosts) are escaped."""
    parts = [
        "---\n" + yaml.safe_dump(front_matter(summary), sort_keys=False, allow_unicode=True) + "---\n",
        f"# {_text(summary.name)}\n",
        "Documents of interleaved images and text in reading order, with sentence-image matches, two vectors a slice "
        f"and mined hard negatives. Version `{_code(summary.version)}`, built by interloom.\n",
        "## Contents\n",
        _table(
            ("", "count"),
            [
                ("documents", f"{summary.documents:,}"),
                *((f"documents, {name}", f"{count:,}") for name, count in summary.splits.items()),
                ("images", f"{summary.images:,}"),
                *((f"images matched {words}", f"{count:,}") for words, count in summary.matches),
                ("images with a caption that are matched to it", summary.own_captions),
                *((f"images whose sentence is {name} nodes away", f"{count:,}") for name, count in summary.distances),
                ("sentences", f"{summary.sentences:,}"),
                ("hard negatives", f"{summary.negatives:,}"),
                ("bytes of images", f"{summary.image_bytes:,}"),
                ("shards", f"{summary.shards:,} ({summary.shard_bytes:,} bytes)"),
            ],
        ),
        "## How to read it\n",
        _reading_note(summary),
        _format_note(),
        "## How it was made\n",
        "What each rule took out, in the order of the pipeline:\n",
        _table(
            ("phase", "rule", "kind", "dropped"),
            [(_text(row.phase), _text(row.rule), _text(row.kind), f"{row.dropped:,}") for row in summary.funnel],
        ),
        "Vectors:\n",
        _table(("vector", "encoder"), [(_text(k), _text(v)) for k, v in summary.encoders.items()]),
        "## Languages, hosts, licences\n",
        _table(("language", "documents"), _named(_frequent(summary.languages), "not identified")),
        _table(("host", "documents"), _named(summary.hosts, "none")),
        _table(("licence declared by the page", "documents"), _named(summary.licenses, "none declared")),
        "## Consent and licences\n",
        _consent_note(summary),
        *([_table(("refused by", "kind", "left out"), refused)] if (refused := _refused(summary)) else []),
        *(["## Known limits\n", "".join(f"- {_text(limit)}\n" for limit in summary.limits)] if summary.limits else []),
        "## Reproduce\n",
        "Save the spec below and run `python -m pipeline.build --spec spec.yaml --out OUT`. The same fetched bytes "
        "give the same shards, bit for bit.\n",
        f"{_fence(summary.spec)}yaml\n{summary.spec.rstrip()}\n{_fence(summary.spec)}\n",
        *(
            [_table(("library", "version"), [(_text(k), _text(v)) for k, v in sorted(summary.libraries.items())])]
            if summary.libraries
            else []
        ),
    ]
    return "\n".join(part.rstrip("\n") + "\n" for part in parts)


def front_matter(summary: CardSummary) -> dict[str, Any]:
    """The YAML block that the Hugging Face hub reads."""
    languages = sorted(name for name in summary.languages if name and re.fullmatch(r"[a-z]{2,3}", name))
    size = next((tag for bound, tag in SIZES if summary.documents < bound), "n>1T")
    return {
        "pretty_name": summary.name,
        "license": "other",
        **({"language": languages} if languages else {}),
        "size_categories": [size],
        "task_categories": ["image-to-text", "image-text-to-text", "feature-extraction"],
        "tags": ["interleaved", "image-text", "hard-negatives", "interloom"],
        **({"configs": [{"config_name": "default", "data_files": files}]} if (files := _data_files(summary)) else {}),
    }


def _data_files(summary: CardSummary) -> list[dict[str, str]]:
    """Where each split that has documents lies; a pattern that no file matches would keep the others from loading."""
    there = [split for split in SPLITS if summary.splits.get(split)]
    return [{"split": split, "path": f"shards/{split}-*.arrow"} for split in there]


def _reading_note(summary: CardSummary) -> str:
    """How to load it, of the splits that are there."""
    lines = [f'{split} = corpus["{split}"]' for split in SPLITS if summary.splits.get(split)]
    if not lines:
        return "No document is left: there is no shard to read.\n"
    return "\n".join(
        [
            "`FOLDER` is this card's folder. Pictures come as PIL images; `streaming=True` makes no copy.\n",
            "```python",
            "from datasets import load_dataset\n",
            'corpus = load_dataset("FOLDER")',
            *lines,
            "```\n",
        ]
    )


def _format_note() -> str:
    name, version = identity(SHARD)
    return (
        f"One row a document, schema `{name}` version {version}. `nodes` are the paragraphs and images in reading "
        "order; `images` hold the pictures and `image_info`, in the same order, where they come from and what their "
        "page says of them (`alt`, `title`, `caption`); `slices` are the images and single sentences with a `primary` "
        "vector (compare within a modality) and a `shared` vector (compare across), the index of their match and how "
        f"it was found (`match_kind`: {', '.join(MATCH_KINDS)}); `similarity_matrix` has a row an image and a column a "
        f"sentence; `negatives` (`kind`: {', '.join(NEGATIVE_KINDS)}) name slices of other documents of the same split "
        "that resemble a slice and are not its match, or hold a text that is wrong. `cluster_id` ties near-duplicates "
        "and documents that share an image: a cluster never spans `train` and `held_out`.\n"
    )


def _consent_note(summary: CardSummary) -> str:
    others = f" Kept to besides were {', '.join(map(_text, summary.signals))}." if summary.signals else ""
    verdict = (
        "Pages and images were fetched only where robots.txt (RFC 9309), X-Robots-Tag and meta robots allowed it; the "
        "verdict and the file that gave it are stored with each document and image (`consent`) and can be re-checked."
        if summary.robots_checked
        else "The pages came from a local source, so no robots verdict was asked for: `consent` holds nulls."
    ) + others
    return (
        f"{verdict} Texts and images stay under the terms of their publishers; `license` is what a page itself "
        "declares, not legal advice. To have a page removed, name its URL to whoever publishes this corpus.\n"
    )


def _refused(summary: CardSummary) -> list[tuple[str, str, str]]:
    """What was left out because somebody asked for it."""
    rows = [row for row in summary.funnel if row.rule in CONSENT_RULES]
    return [(_text(rule_words(row.kind, row.rule)), _text(row.kind), f"{row.dropped:,}") for row in rows]


def _frequent(counts: Mapping[str | None, int]) -> Frequent:
    """Largest first, ties by name."""
    ordered = sorted(counts.items(), key=lambda item: (-item[1], str(item[0])))
    rest = ordered[MOST_NAMES:]
    return Frequent(ordered[:MOST_NAMES], len(rest), sum(count for _, count in rest))


def _named(found: Frequent, missing: str) -> list[tuple[str, str]]:
    """As rows of a table, the tail in one line."""
    rows = [(_text(name) if name else missing, f"{count:,}") for name, count in found.names]
    return [*rows, (f"{found.others} more", f"{found.rest:,}")] if found.others else rows


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    body = [tuple(row) for row in rows] or [("none", *("" for _ in head[1:]))]
    lines = [head, ["---"] * len(head), *body]
    return "".join("| " + " | ".join(line) + " |\n" for line in lines)


def _text(value: str) -> str:
    """One line of plain text: nothing in it is Markdown or HTML."""
    flat = " ".join(value.split())[:300]
    return re.sub(r"([\\`*_{}\[\]<>()#+!|~&$])", r"\\\1", flat)


def _code(value: str) -> str:
    return " ".join(value.split()).replace("`", "'")


def _fence(content: str) -> str:
    """A code fence longer than any run of backticks inside."""
    longest = max((len(run) for run in re.findall(r"`+", content)), default=0)
    return "`" * max(3, longest + 1)
