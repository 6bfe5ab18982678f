"""What came out of a build, in at most twenty lines."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from pipeline.corpus.funnel import SAMPLED_OUT
from pipeline.corpus.matches import own_captions, ways
from pipeline.corpus.version import Corpus
from pipeline.corpus.words import counted, sample_words
from pipeline.engine.layout import REPORT
from pipeline.spec.sections import PricesSettings

_NEAR = ("signatures", "edges", "candidate_pairs", "similarities", "clusters")
_GROUPS: tuple[tuple[str, tuple[str, ...]], ...] = (
    ("crawl", ("pages",)),
    ("extract", ("documents",)),
    ("duplicates", ("paragraphs", *_NEAR, "choose")),
    ("filters", ("scores", "text", "passed")),
    ("images", ("fetched_images", "images")),
    ("embed", ("slices", "embeddings")),
    ("pair and mine", ("shared_pictures", "border", "kept", "pairs", "negatives")),
    ("shards", ("shards",)),
)


def seconds_by_group(corpus: Corpus) -> dict[str, float]:
    """Seconds that the phases took when they ran, by what they are for."""
    return {
        group: sum(float(corpus.table(phase).record.run["seconds"]) for phase in phases if phase in corpus.phases)
        for group, phases in _GROUPS
    }


def summarize(corpus: Corpus, seconds: float) -> Iterator[str]:
    """Lines for a terminal."""
    counts = corpus.manifest.counts

    def n(name: str) -> str:
        return f"{counts.get(name, 0):,}"

    def of(name: str, one: str) -> str:
        return counted(counts.get(name, 0), one)

    megabytes = sum(part.bytes for part in corpus.manifest.shards) / 1e6
    root = f"{corpus.storage}/{corpus.folder}"
    yield f"corpus {corpus.manifest.name}, version {corpus.version}, {seconds:.0f} s"
    share = sample_words(corpus.manifest.spec["source"])
    sampled = f"; a sample of {share}, {n(SAMPLED_OUT)} are left out" if share else ""
    yield f"  pages            {n('documents.pages')} asked for, {n('documents.pages_fetched')} read{sampled}"
    yield (
        f"  documents        {n('shards.documents')} kept of {n('documents.documents')}"
        f" ({n('shards.held_out')} held out){_nothing_held_out(counts)}"
    )
    if warning := leaking(counts):
        yield f"  {warning}"
    yield (
        f"  duplicates       {of('choose.near_duplicate', 'near-duplicate')} dropped,"
        f" {n('choose.same_url')} of the same URL, {n('choose.same_text')} of the same text,"
        f" for {of('choose.copies_kept', 'document')} kept"
    )
    yield (
        f"  images           {n('shards.images')} in the shards{_matches(counts)}"
        f"; {of('images.images', 'distinct URL')} asked for, {n('images.images_ok')} gave a picture"
    )
    yield f"  sentences        {n('shards.sentences')}"
    yield f"  negatives        {n('shards.negatives')}"
    yield f"  shards           {counted(len(corpus.manifest.shards), 'file')}, {megabytes:.1f} MB"
    times = ", ".join(f"{group} {value:.0f}" for group, value in seconds_by_group(corpus).items())
    yield f"  seconds          {times}"
    if corpus.retryable:
        failed = counted(corpus.retryable, "fetch or row", "fetches and rows")
        yield f"  {failed} failed in a way that may pass; try again with {corpus.command('--retry-failed')}"
    if line := _cost(corpus):
        yield line
    yield f"  shards in        {root}/shards"
    yield f"  report           {root}/{REPORT}"


def _matches(counts: Mapping[str, int]) -> str:
    """How their sentences were found."""
    found = ways(counts)
    return f", matched {found}; captions matched to their own {own_captions(counts)}" if found else ""


def _nothing_held_out(counts: Mapping[str, int]) -> str:
    """What to do when there is nothing to measure on, which is no fault of a corpus to train on."""
    if not counts.get("shards.documents") or counts.get("shards.held_out"):
        return ""
    return "; nothing is held out: raise shard.held_out_fraction"


# Share of the documents dropped by the split from which it is a warning.
_MOST_LEAKING = 0.1


def leaking(counts: Mapping[str, int]) -> str:
    """How much the split costs, where it is much; "" where it is not."""
    gone = counts.get("kept.leaking", 0)
    share = gone / max(1, gone + counts.get("kept.documents", 0))
    if share <= _MOST_LEAKING:
        return ""
    return (
        f"warning: {counted(gone, 'document')}, {100 * share:.0f}% of what was left, would leak from what is trained "
        "on to what is held out and are dropped: lower shard.held_out_fraction"
    )


def _cost(corpus: Corpus) -> str | None:
    prices = corpus.section("prices", PricesSettings)
    cpus = float(corpus.manifest.run.get("cpus", 0))
    gpus = float(corpus.manifest.run.get("gpus", 0))
    hours = sum(seconds_by_group(corpus).values()) / 3600
    amount = hours * (cpus * prices.cpu_hour + gpus * prices.gpu_hour)
    gigabytes = sum(part.bytes for part in corpus.manifest.shards) / 1e9
    monthly = gigabytes * prices.storage_gigabyte_month
    if not amount and not monthly:
        return None
    return f"  cost             {amount:.4f} {prices.currency} to build, {monthly:.4f} a month to keep the shards"
