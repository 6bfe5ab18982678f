"""Collecting: a corpus, finished or not, to ReportData."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from functools import partial

import pyarrow as pa
import yaml

from pipeline.corpus.funnel import SAMPLED_OUT, FunnelRow, by_rule, funnel
from pipeline.corpus.matches import by_kind, own_captions, share
from pipeline.corpus.summary import leaking
from pipeline.corpus.version import Corpus, read_shard
from pipeline.corpus.words import counted, number, sample_words
from pipeline.engine.aggregates import Ranking, Rows, matching, table_rows
from pipeline.engine.packs import read_packed
from pipeline.engine.storage import Storage
from pipeline.engine.table import Beside, read_beside, side_by_side
from pipeline.report.data import Cluster, Copy, Guard, PhaseTime, Picture, ReportData, Step
from pipeline.report.differences import compare
from pipeline.report.dropped import Dropped, examples
from pipeline.report.gallery import Row, chosen, chosen_negatives, document, holding, look_up
from pipeline.report.pictures import thumbnail
from pipeline.report.scores import COUNTED, Scores, counted_text, of_counts, of_decisions, of_shards
from pipeline.report.training import charts, note, retrieval
from pipeline.spec.sections import ReportSettings
from schemas.document import DOCUMENT
from schemas.manifest import ListedFile
from schemas.shard import SHARD, shard_order
from schemas.tables import CHOICE, CLUSTER, IMAGE_USE, SCORED
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
    scores = Scores()
    (shown,) = _looked_at(corpus).aggregate(of_shards())
    (texts,) = _texts(corpus).aggregate(of_counts())
    ruled, cut, sampled = corpus.decided().aggregate(by_rule(), of_decisions(), examples(settings.examples_per_rule))
    for counted_scores in (shown, texts, cut):
        scores.add_counted(counted_scores)
    steps = funnel(ruled, corpus.phases, corpus.manifest.counts.get(SAMPLED_OUT, 0))
    dropped = Dropped(steps, sampled)

    rows = _gallery(corpus, settings.documents)
    wanted = {
        (mined["document_id"], mined["candidate"])
        for row in rows
        for negatives in chosen_negatives(row).values()
        for mined in negatives
    }
    others = look_up(_shard_documents(corpus, {document_id for document_id, _ in wanted}), wanted)
    asked = dropped.wanted()
    urls = {name: url for name, (_, url) in _documents(corpus, asked.documents).items()}
    clusters, more_clusters = _clusters(corpus)
    return ReportData(
        name=corpus.manifest.name,
        called=corpus.called,
        built=str(corpus.manifest.run.get("built", "")).replace("T", " ").replace("Z", " UTC"),
        seconds=float(corpus.manifest.run.get("seconds", 0)),
        figures=_figures(corpus),
        steps=_steps(corpus, steps),
        funnel=steps,
        histograms=scores.histograms(corpus.manifest.spec),
        documents=[document(row, others) for row in rows],
        clusters=clusters,
        more_clusters=more_clusters,
        samples=dropped.samples(urls, _pictures(corpus, asked.images), _paragraphs(corpus, asked.paragraphs)),
        guards=_guards(corpus),
        times=_times(corpus),
        spec=yaml.safe_dump(corpus.manifest.spec, sort_keys=False, allow_unicode=True),
        facts=_facts(corpus),
        charts=charts(corpus),
        retrieval=retrieval(corpus, _looked_at(corpus)),
        notes=_notes(corpus),
        caveat=f"{'Unfinished' if corpus.ahead else 'Not published'}: {corpus.caveat}" if corpus.caveat else "",
    )


def _shards(corpus: Corpus, files: Sequence[ListedFile]) -> Rows:
    return Rows(partial(read_shard, corpus.storage), files, SHARD, sum(file.bytes for file in files))


def _looked_at(corpus: Corpus) -> Rows:
    """The first shards, up to MOST_SHARD_BYTES, one at least."""
    size = 0
    files = corpus.shard_files
    for index, file in enumerate(files):
        size += file.bytes
        if index and size > MOST_SHARD_BYTES:
            return _shards(corpus, files[:index])
    return _shards(corpus, files)


def _gallery(corpus: Corpus, most: int) -> list[Row]:
    """The documents with the smallest ids: of each split they lie in the first shards."""
    first: list[ListedFile] = []
    there: Counter[int] = Counter()
    for file in corpus.shard_files:
        split, _ = shard_order(file.name)
        if there[split] < most:
            first.append(file)
            there[split] += file.rows
    (found,) = _shards(corpus, first).aggregate(chosen(most))
    rows: list[Row] = found.to_pylist()
    return rows


def _shard_documents(corpus: Corpus, wanted: set[str]) -> list[Row]:
    """Documents of the shards that are looked at, by id."""
    if not wanted:
        return []
    (found,) = _looked_at(corpus).aggregate(holding(wanted))
    rows: list[Row] = found.to_pylist()
    return rows


def _texts(corpus: Corpus) -> Rows:
    """Counts of the text scores of kept documents, a key range at a time."""
    if not {"kept", "scores"} <= set(corpus.phases):
        return Rows(partial(_text_scores, corpus.storage, FilterSettings()), [], COUNTED, 0)
    kept, scores = corpus.table("kept"), corpus.table("scores")
    read = partial(_text_scores, corpus.storage, corpus.section("filter", FilterSettings))
    size = sum(part.bytes for part in (*kept.parts, *scores.parts))
    return Rows(read, side_by_side(kept, scores), COUNTED, size)


def _text_scores(storage: Storage, rules: FilterSettings, beside: Beside) -> pa.Table:
    return counted_text(*read_beside(storage, beside, ("document_id", "positions"), SCORED.names), rules)


def _notes(corpus: Corpus) -> list[str]:
    notes = []
    if share := sample_words(corpus.manifest.spec["source"]):
        notes.append(f"Made of a sample: {share} of the pages, chosen by a hash of their addresses (source.sample).")
    looked_at, there = len(_looked_at(corpus).parts), len(corpus.manifest.shards)
    if looked_at < there:
        notes.append(f"Scores and gallery are from {looked_at:,} of {there:,} shards; everything else is from all.")
    if hot := corpus.manifest.counts.get("edges.hot_buckets", 0):
        most = corpus.section("dedup", DedupSettings).max_bucket
        notes.append(
            f"{counted(hot, 'band key')} of near-duplicates {'is' if hot == 1 else 'are'} shared by more than "
            f"{most:,} documents{'' if hot == 1 else ' each'}."
        )
    if gone := corpus.manifest.counts.get("kept.leaking", 0):
        there = gone + corpus.manifest.counts.get("kept.documents", 0)
        notes.append(
            f"The split drops {counted(gone, 'document')}, {number(100 * gone / there)}% of what was left, that would "
            "be held out and show a picture of one that is trained on."
        )
        if line := leaking(corpus.manifest.counts):
            notes.append(line)
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

    return [
        (f"{n('documents'):,}", "documents"),
        (f"{n('images'):,}", "images"),
        (f"{n('sentences'):,}", "sentences"),
        *((share(number, n("images")), f"images matched {words}") for words, number in by_kind(corpus.manifest.counts)),
        (own_captions(corpus.manifest.counts), "images with a caption, matched to it"),
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
    passed = _rows(corpus, "passed")
    gone = sum(row.dropped for row in funnel if (row.phase, row.kind) == ("choose", "document"))
    counted = [
        ("pages asked for", _rows(corpus, "pages"), ""),
        ("pages read", corpus.manifest.counts.get("documents.pages_fetched"), "fetched, and HTML"),
        ("documents", _rows(corpus, "documents"), "extracted, use allowed"),
        ("text passed", _rows(corpus, "text"), "language, words, repetition …"),
        ("pictures passed", passed, "fetched, large enough, not furniture"),
        ("without copies", None if passed is None or "choose" in corpus.ahead else passed - gone, "same page or text"),
        ("without leaks", _rows(corpus, "kept"), "no picture on both sides of the split"),
        ("in the shards", _rows(corpus, "shards"), ""),
    ]
    return [Step(label, count, note) for label, count, note in counted if count is not None]


def _found(corpus: Corpus, phase: str, schema: pa.Schema, columns: Sequence[str], wanted: set[str]) -> list[Row]:
    """Rows of a phase's table by the first of the columns; none where the corpus has no such phase."""
    if not wanted or phase not in corpus.phases:
        return []
    (found,) = table_rows(corpus.table(phase), schema, columns).aggregate(matching(columns[0], wanted))
    rows: list[Row] = found.to_pylist()
    return rows


def _documents(corpus: Corpus, wanted: set[str]) -> dict[str, tuple[str, str]]:
    """(title, url) of documents by id."""
    rows = _found(corpus, "documents", DOCUMENT, ("document_id", "title", "url"), wanted)
    return {row["document_id"]: (row["title"] or "", row["url"]) for row in rows}


def _paragraphs(corpus: Corpus, wanted: set[tuple[str, int]]) -> dict[tuple[str, int], str]:
    """Text of extracted nodes."""
    rows = _found(corpus, "documents", DOCUMENT, ("document_id", "nodes"), {name for name, _ in wanted})
    return {
        (row["document_id"], index): node["text"]
        for row in rows
        for index, node in enumerate(row["nodes"])
        if (row["document_id"], index) in wanted and node["text"]
    }


def _pictures(corpus: Corpus, wanted: set[str]) -> dict[str, Picture | None]:
    """Thumbnails of dropped images whose bytes are there."""
    rows = _found(corpus, "images", IMAGE_USE, ("image_id", "body"), wanted)
    bodies = read_packed(corpus.storage, pa.array([row["body"] for row in rows], IMAGE_USE.field("body").type))
    pairs = zip(rows, bodies, strict=True)
    return {row["image_id"]: thumbnail(data, SAMPLE_SIDE) for row, data in pairs if data is not None}


def _clusters(corpus: Corpus) -> tuple[list[Cluster], int]:
    """(The largest clusters of near-duplicates, how many more there are), once it is chosen among them."""
    if "choose" not in corpus.phases:
        return [], 0
    clusters = table_rows(corpus.table("clusters"), CLUSTER, ("cluster_id",))
    (sizes,) = clusters.aggregate(Ranking("cluster_id", MOST_CLUSTERS))
    largest = [row["cluster_id"] for row in sizes.to_pylist() if row["others"] is None and row["n"] > 1]
    more = corpus.table("clusters").record.counts.get("clusters", len(largest)) - len(largest)
    members: dict[str, list[Row]] = {}
    for row in _found(corpus, "clusters", CLUSTER, ("cluster_id", "document_id", "similarity"), set(largest)):
        members.setdefault(row["cluster_id"], []).append(row)
    known = {row["document_id"] for rows in members.values() for row in rows}
    chosen = {row["document_id"]: row["kept"] for row in _found(corpus, "choose", CHOICE, _CHOSEN, known)}
    shown: dict[str, list[Row]] = {}
    for name in largest:
        # The kept one first, then those that stood against it, then what other rules had dropped before.
        rows = sorted(members[name], key=lambda row: (-chosen.get(row["document_id"], -1), row["document_id"]))
        shown[name] = rows[: MOST_COPIES + 1]
    wanted = {row["document_id"] for rows in shown.values() for row in rows}
    about = {row["document_id"]: row for row in _found(corpus, "documents", DOCUMENT, _COMPARED, wanted)}
    found = []
    for name, rows in shown.items():
        first, *others = [row for row in rows if row["document_id"] in about]
        stays = chosen.get(first["document_id"], False)
        if not stays:
            others = [first, *others][:MOST_COPIES]
        kept = about[first["document_id"]] if stays else None
        copies = [_copy(kept, about[row["document_id"]], row, chosen.get(row["document_id"])) for row in others]
        title, url = (kept["title"] or "", kept["url"]) if kept else ("", "")
        found.append(Cluster(title, url, copies, len(members[name]) - len(copies) - stays))
    return found, more


_CHOSEN = ("document_id", "kept")
_COMPARED = ("document_id", "title", "url", "nodes")


def _copy(kept: Row | None, copy: Row, row: Row, stays: bool | None) -> Copy:
    rule = {None: "dropped by another rule", True: "kept too", False: ""}[stays]
    if kept is None:
        return Copy(copy["title"] or "", copy["url"], rule, row["similarity"])
    texts = [[node["text"] for node in each["nodes"] if node["kind"] == "text"] for each in (kept, copy)]
    ours, theirs = ({node["image_id"] for node in each["nodes"] if node["kind"] == "image"} for each in (kept, copy))
    pictures = f"{counted(len(theirs), 'picture')}, {len(theirs & ours):,} of them the same" if theirs else "no picture"
    return Copy(copy["title"] or "", copy["url"], rule, row["similarity"], pictures, compare(*texts))


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
