"""What a report shows, as plain data: the collector fills it from a corpus, the renderer draws it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from pipeline.corpus.funnel import FunnelRow
from pipeline.report.differences import Comparison


@dataclass(frozen=True)
class Step:
    """A station on the way from pages to shards."""

    label: str
    count: int
    note: str = ""


@dataclass(frozen=True)
class Histogram:
    """A score: what was kept and what a rule took out, over the same bins."""

    title: str
    unit: str
    edges: Sequence[float]  # ascending, one more than the bins
    kept: Sequence[int]
    dropped: Sequence[int] = ()
    low: float | None = None  # the bounds of the rule
    high: float | None = None
    note: str = ""
    kept_label: str = "kept"
    dropped_label: str = "dropped"
    log_x: bool = False
    whole: bool = False  # values are whole numbers, edges lie halfway between them


@dataclass(frozen=True)
class Picture:
    """An image small enough to stand in the page."""

    uri: str  # data:image/…;base64,…
    width: int  # pixels of the thumbnail
    height: int
    alt: str = ""


@dataclass(frozen=True)
class Span:
    """A piece of a paragraph; `match` numbers the pair it belongs to within the document, from 1."""

    text: str
    match: int | None = None
    similarity: float | None = None


@dataclass(frozen=True)
class Paragraph:
    """A text node, cut at its sentences."""

    spans: Sequence[Span]


@dataclass(frozen=True)
class NearSentence:
    """A mined sentence: its text, the score against the anchor, where it stands."""

    text: str
    score: float
    title: str
    url: str


@dataclass(frozen=True)
class NearPicture:
    """A mined image."""

    picture: Picture | None  # None where the bytes cannot be drawn
    score: float
    title: str
    url: str


@dataclass(frozen=True)
class NearMisses:
    """One true pair and the nearest of what was mined against it: sentences for the image, images for the sentence."""

    sentence: str
    picture: Picture | None
    similarity: float | None
    sentences: Sequence[NearSentence] = ()
    pictures: Sequence[NearPicture] = ()
    sentences_mined: int = 0  # in the shards, those shown among them
    pictures_mined: int = 0


@dataclass(frozen=True)
class Figure:
    """An image node."""

    picture: Picture | None
    url: str
    alt: str = ""
    caption: str = ""
    size: str = ""  # "640 x 480, was 1280 x 960"
    match: int | None = None
    similarity: float | None = None
    misses: NearMisses | None = None


@dataclass(frozen=True)
class Thread:
    """One slice in the line that draws a document: its kind, the words it has, the pair it belongs to."""

    kind: str  # "image" | "sentence"
    words: int = 0
    match: int | None = None


@dataclass(frozen=True)
class Document:
    """A document of the gallery, as a reader meets it."""

    document_id: str
    title: str
    url: str
    language: str
    split: str
    cluster_id: str
    blocks: Sequence[Paragraph | Figure]
    threads: Sequence[Thread]
    sentences: int
    images: int
    negatives: int
    cut: int = 0  # blocks left out at the end


@dataclass(frozen=True)
class Copy:
    """A document that went because another one of its cluster is kept, or by another rule."""

    title: str
    url: str
    rule: str  # in words
    value: float | None = None  # similarity to the nearest of its cluster
    pictures: str = ""  # how many it shows of those of the kept one, in words
    comparison: Comparison = field(default_factory=lambda: Comparison((), 0))  # the kept one on the left


@dataclass(frozen=True)
class Cluster:
    """Documents of nearly the same text, and the one that was kept, if any."""

    kept_title: str
    kept_url: str
    copies: Sequence[Copy]
    more: int = 0  # copies left out of the list


@dataclass(frozen=True)
class Sample:
    """One decision: what was dropped, and its score."""

    subject: str  # URL
    detail: str
    value: float | None = None
    picture: Picture | None = None


@dataclass(frozen=True)
class RuleSamples:
    """Some of what one rule took out."""

    phase: str
    rule: str
    kind: str
    dropped: int
    low: float | None
    high: float | None
    samples: Sequence[Sample]


@dataclass(frozen=True)
class Guard:
    """What one guard kept out of the lists of negatives."""

    kind: str  # schemas.negative.KINDS
    guard: str
    pairs: int


@dataclass(frozen=True)
class PhaseTime:
    """What one phase cost when it ran."""

    phase: str
    seconds: float
    rows: int | None = None
    computed: int | None = None  # rows that a function was run on
    remembered: int | None = None  # rows answered from the row stores


@dataclass(frozen=True)
class Curve:
    """One line of a training chart."""

    label: str
    points: Sequence[tuple[float, float]]  # (step, value)


@dataclass(frozen=True)
class Chart:
    """A training chart."""

    title: str
    unit: str
    curves: Sequence[Curve]


@dataclass(frozen=True)
class Retrieved:
    """One answer to a query."""

    text: str
    picture: Picture | None
    score: float
    correct: bool


@dataclass(frozen=True)
class Retrieval:
    """A query to the trained model and its best answers."""

    query: str
    picture: Picture | None
    results: Sequence[Retrieved]


@dataclass(frozen=True)
class Ranks:
    """How a direction of retrieval did at one moment; None where nothing was asked."""

    label: str  # chance, before, after
    median_rank: float | None
    mrr: float | None
    recall: Mapping[str, float | None]  # by cutoff
    # 95% over pages, None where there are too few
    median_rank_interval: tuple[float, float] | None = None
    mrr_interval: tuple[float, float] | None = None
    recall_intervals: Mapping[str, tuple[float, float] | None] = field(default_factory=dict)  # by cutoff


@dataclass(frozen=True)
class Direction:
    """One direction of retrieval over the held-out documents: figures, what may be claimed of them, examples."""

    title: str
    n: int
    candidates: int
    claim: str
    ranks: Sequence[Ranks]
    examples: Sequence[Retrieval]
    pages: int | None = None  # independent of each other: what tests and intervals count


@dataclass(frozen=True)
class ReportData:
    """The whole report."""

    name: str
    called: str  # "version …" or "build …"
    built: str  # ISO 8601, UTC
    seconds: float
    figures: Sequence[tuple[str, str]]  # key numbers: value, label
    steps: Sequence[Step]
    funnel: Sequence[FunnelRow]  # in the order of the pipeline
    histograms: Sequence[Histogram]
    documents: Sequence[Document]
    clusters: Sequence[Cluster]  # the largest
    samples: Sequence[RuleSamples]
    guards: Sequence[Guard]
    times: Sequence[PhaseTime]
    spec: str  # YAML
    facts: Sequence[tuple[str, str]] = ()  # versions, keys, machine: name, value
    charts: Sequence[Chart] = ()
    retrieval: Sequence[Direction] = ()
    caveat: str = ""  # why this is no corpus to build upon
    notes: Sequence[str] = ()  # what the reader should know first, one sentence each
    more_clusters: int = 0  # besides those that are shown, none of them larger
