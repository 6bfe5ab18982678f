"""Collecting: a corpus, finished or not, to ReportData, in two passes over its shards and one over its decisions."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from itertools import islice

import pyarrow as pa
import pyarrow.compute as pc
import yaml

from pipeline.corpus.funnel import SAMPLED_OUT, FunnelRow
from pipeline.corpus.version import Corpus
from pipeline.corpus.words import counted, number, sample_words
from pipeline.engine.packs import read_packed
from pipeline.engine.table import side_by_side
from pipeline.report.data import Cluster, Copy, Guard, PhaseTime, Picture, ReportData, Step
from pipeline.report.dropped import Dropped
from pipeline.report.gallery import Chooser, chosen_negatives, document, look_up
from pipeline.report.pictures import thumbnail
from pipeline.report.scores import Scores
from pipeline.report.training import charts, note, retrieval
from pipeline.spec.sections import ReportSettings
from stages.dedup.near import DedupSettings
from stages.filter.settings import FilterSettings

# Bytes of shards that are looked at for scores and the gallery; shards are cut by hash, so the first are
# as good as any others.
MOST_SHARD_BYTES = 4 << 30
MOST_CLUSTERS = 12
MOST_COPIES = 4
SAMPLE_SIDE = 132  # pixels


def collect(corpus: Corpus) -> ReportData:
    """Everything the report shows; `report:` of the resolved spec says how much.

    Raises what reading raises: pipeline.engine.table.Damaged names a file that is not what its manifest lists, or a
    spec of another version of the program.
    """
    settings = corpus.section("report", ReportSettings)
    filters = corpus.section("filter", FilterSettings)
    scores, chooser, dropped = Scores(), Chooser(settings.documents), Dropped(settings.examples_per_rule)
    dropped.funnel.add_sampled_out(corpus.manifest.counts.get(SAMPLED_OUT, 0))
    for shard in _shards(corpus):
        scores.add_shard(shard)
        chooser.add(shard)
    for kept, scored in _texts(corpus):
        scores.add_text(kept, scored, filters)
    for decisions in corpus.decisions():
        scores.add_decisions(decisions)
        dropped.add(decisions)

    rows = chooser.rows()
    wanted = {
        (mined["document_id"], mined["candidate"])
        for row in rows
        for negatives in chosen_negatives(row).values()
        for mined in negatives
    }
    others = look_up(_shards(corpus), wanted) if wanted else {}
    funnel = dropped.funnel.rows()
    asked = dropped.wanted()
    urls = {name: url for name, (_, url) in _documents(corpus, asked.documents).items()}
    return ReportData(
        name=corpus.manifest.name,
        called=corpus.called,
        built=str(corpus.manifest.run.get("built", "")).replace("T", " ").replace("Z", " UTC"),
        seconds=float(corpus.manifest.run.get("seconds", 0)),
        figures=_figures(corpus),
        steps=_steps(corpus, funnel),
        funnel=funnel,
        histograms=scores.histograms(corpus.manifest.spec),
        documents=[document(row, others) for row in rows],
        clusters=_clusters(corpus),
        samples=dropped.samples(urls, _pictures(corpus, asked.images), _paragraphs(corpus, asked.paragraphs)),
        guards=_guards(corpus),
        times=_times(corpus),
        spec=yaml.safe_dump(corpus.manifest.spec, sort_keys=False, allow_unicode=True),
        facts=_facts(corpus),
        charts=charts(corpus),
        retrieval=retrieval(corpus, _shards(corpus)),
        notes=_notes(corpus),
        caveat=f"{'Unfinished' if corpus.ahead else 'Not published'}: {corpus.caveat}" if corpus.caveat else "",
    )


def _shards(corpus: Corpus) -> Iterator[pa.Table]:
    return islice(corpus.shards(), _looked_at(corpus))


def _texts(corpus: Corpus) -> Iterator[tuple[pa.Table, pa.Table]]:
    """Kept documents with the text scores of all, a key range at a time."""
    if {"kept", "scores"} <= set(corpus.phases):
        yield from side_by_side(corpus.table("kept"), corpus.table("scores"))


def _looked_at(corpus: Corpus) -> int:
    """How many of the shards are read: all, up to MOST_SHARD_BYTES, one at least."""
    size = 0
    for index, part in enumerate(corpus.manifest.shards):
        size += part.bytes
        if index and size > MOST_SHARD_BYTES:
            return index
    return len(corpus.manifest.shards)


def _notes(corpus: Corpus) -> list[str]:
    notes = []
    if share := sample_words(corpus.manifest.spec["source"]):
        notes.append(f"Made of a sample: {share} of the pages, chosen by a hash of their addresses (source.sample).")
    looked_at, there = _looked_at(corpus), len(corpus.manifest.shards)
    if looked_at < there:
        notes.append(f"Scores and gallery are from {looked_at:,} of {there:,} shards; everything else is from all.")
    if hot := corpus.manifest.counts.get("edges.hot_buckets", 0):
        most = corpus.section("dedup", DedupSettings).max_bucket
        notes.append(
            f"{counted(hot, 'band key')} of near-duplicates {'is' if hot == 1 else 'are'} shared by more than "
            f"{most:,} documents{'' if hot == 1 else ' each'}."
        )
    if corpus.retryable:
        failed = counted(corpus.retryable, "fetch or row", "fetches and rows")
        notes.append(f"{failed} failed in a way that may pass. To try again: {corpus.command('--retry-failed')}")
    if said := note(corpus):
        notes.append(said)
    return notes


def _figures(corpus: Corpus) -> list[tuple[str, str]]:
    """Key numbers of the shards; of what there is where the build did not come so far."""
    if corpus.ahead:
        rows = [(_rows(corpus, phase), label) for phase, label in (("pages", "pages"), ("documents", "documents"))]
        return [(f"{number:,}", label) for number, label in rows if number is not None]

    def n(name: str) -> int:
        return corpus.manifest.counts.get(f"shards.{name}", 0)

    def share(part: int, whole: int) -> str:
        return f"{100 * part / whole:.0f}%" if whole else "none"

    return [
        (f"{n('documents'):,}", "documents"),
        (f"{n('images'):,}", "images"),
        (f"{n('sentences'):,}", "sentences"),
        (share(n("matched_images"), n("images")), "images with a sentence"),
        (f"{n('negatives'):,}", "hard negatives"),
        (share(n("held_out"), n("documents")), "held out"),
    ]


def _rows(corpus: Corpus, phase: str) -> int | None:
    """Rows of a phase's table, None when this corpus has no such phase."""
    if phase not in corpus.phases:
        return None
    return corpus.table(phase).record.rows


def _steps(corpus: Corpus, funnel: list[FunnelRow]) -> list[Step]:
    """The way of the pages: rows of the tables that hold one row a document still in."""
    text = _rows(corpus, "text")
    near = sum(row.dropped for row in funnel if (row.kind, row.rule) == ("document", "near_duplicate"))
    counted = [
        ("pages asked for", _rows(corpus, "pages"), ""),
        ("pages read", corpus.manifest.counts.get("documents.pages_fetched"), "fetched, and HTML"),
        ("documents", _rows(corpus, "documents"), "extracted, use allowed"),
        ("without exact copies", _rows(corpus, "unique"), "same address or same text"),
        ("text passed", _rows(corpus, "text"), "language, words, repetition …"),
        ("without near-duplicates", None if text is None or "clusters" in corpus.ahead else text - near, ""),
        ("pictures passed", _rows(corpus, "kept"), "fetched, large enough, not furniture"),
        ("in the shards", _rows(corpus, "shards"), ""),
    ]
    return [Step(label, count, note) for label, count, note in counted if count is not None]


def _documents(corpus: Corpus, wanted: set[str]) -> dict[str, tuple[str, str]]:
    """(title, url) of documents by id."""
    found: dict[str, tuple[str, str]] = {}
    if not wanted or "documents" not in corpus.phases:
        return found
    ids = pa.array(sorted(wanted), pa.string())
    for part in corpus.table("documents").read_all():
        mine = part.select(["document_id", "title", "url"]).filter(pc.is_in(part.column("document_id"), value_set=ids))
        found |= {row["document_id"]: (row["title"] or "", row["url"]) for row in mine.to_pylist()}
    return found


def _paragraphs(corpus: Corpus, wanted: set[tuple[str, int]]) -> dict[tuple[str, int], str]:
    """Text of extracted nodes."""
    found: dict[tuple[str, int], str] = {}
    if not wanted or "documents" not in corpus.phases:
        return found
    ids = pa.array(sorted({document_id for document_id, _ in wanted}), pa.string())
    for part in corpus.table("documents").read_all():
        mine = part.select(["document_id", "nodes"]).filter(pc.is_in(part.column("document_id"), value_set=ids))
        for row in mine.to_pylist():
            for index, node in enumerate(row["nodes"]):
                if (row["document_id"], index) in wanted and node["text"]:
                    found[row["document_id"], index] = node["text"]
    return found


def _pictures(corpus: Corpus, wanted: set[str]) -> dict[str, Picture | None]:
    """Thumbnails of dropped images whose bytes are there."""
    found: dict[str, Picture | None] = {}
    if not wanted or "images" not in corpus.phases:
        return found
    ids = pa.array(sorted(wanted), pa.string())
    for part in corpus.table("images").read_all():
        mine = part.select(["image_id", "body"]).filter(pc.is_in(part.column("image_id"), value_set=ids))
        bodies = read_packed(corpus.storage, mine.column("body"))
        for image_id, data in zip(mine.column("image_id").to_pylist(), bodies, strict=True):
            if data is not None:
                found[image_id] = thumbnail(data, SAMPLE_SIDE)
    return found


def _clusters(corpus: Corpus) -> list[Cluster]:
    """The largest clusters of near-duplicates."""
    if "clusters" not in corpus.phases:
        return []
    members: dict[str, list[tuple[str, bool]]] = {}
    sizes: Counter[str] = Counter()
    for part in corpus.table("clusters").read_all():
        sizes.update(part.column("cluster_id").to_pylist())
    largest = sorted((name for name, size in sizes.items() if size > 1), key=lambda name: (-sizes[name], name))
    names = pa.array(largest[:MOST_CLUSTERS], pa.string())
    for part in corpus.table("clusters").read_all():
        for row in part.filter(pc.is_in(part.column("cluster_id"), value_set=names)).to_pylist():
            members.setdefault(row["cluster_id"], []).append((row["document_id"], row["kept"]))
    about = _documents(corpus, {document_id for rows in members.values() for document_id, _ in rows})
    found = []
    for name in largest[:MOST_CLUSTERS]:
        kept = next((about[item] for item, stays in sorted(members[name]) if stays and item in about), ("", ""))
        copies = [about[item] for item, stays in sorted(members[name]) if not stays and item in about]
        shown = [Copy(title, url, "near_duplicate") for title, url in copies[:MOST_COPIES]]
        found.append(Cluster(*kept, shown, len(copies) - len(shown)))
    return found


def _guards(corpus: Corpus) -> list[Guard]:
    """Counts "guard.<kind>.<guard>" of the miner, but for what is apart by definition."""
    if "negatives" not in corpus.phases:
        return []
    found = []
    for name, pairs in corpus.table("negatives").record.counts.items():
        kind, _, guard = name.removeprefix("guard.").partition(".")
        if name.startswith("guard.") and guard not in ("document", "split"):
            found.append(Guard(kind, guard, pairs))
    order = ("cluster", "content", "phash", "similarity")
    return sorted(found, key=lambda row: (row.kind, order.index(row.guard) if row.guard in order else 9, row.guard))


def _times(corpus: Corpus) -> list[PhaseTime]:
    times = []
    for phase in corpus.phases:
        record = corpus.table(phase).record
        times.append(
            PhaseTime(
                phase,
                float(record.run.get("seconds", 0)),
                record.rows,
                record.run.get("rows_computed"),
                record.run.get("rows_remembered"),
            )
        )
    return times


def _facts(corpus: Corpus) -> list[tuple[str, str]]:
    manifest = corpus.manifest
    megabytes = sum(part.bytes for part in manifest.shards) / 1e6
    cpus, gpus = float(manifest.run.get("cpus", 0)), float(manifest.run.get("gpus", 0))
    machine = f"{_processors(cpus, 'CPU')}, {_processors(gpus, 'GPU')}"
    made = [
        ("shards", f"{len(manifest.shards):,} files, {megabytes:,.1f} MB"),
        ("schema", f"{manifest.schema} {manifest.schema_version}"),
        ("machine", machine),
    ]
    return [*([] if corpus.ahead else made), *corpus.libraries().items()]


def _processors(count: float, name: str) -> str:
    """Ray counts them in fractions."""
    return f"{number(count)} {name}{'' if count == 1 else 's'}" if count else f"no {name}"
