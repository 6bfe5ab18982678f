"""Sections of the spec that belong to the build as a whole; the others stand beside the stage they set."""

from __future__ import annotations

import re
from datetime import date
from typing import Annotated, Literal
from zoneinfo import ZoneInfo

from croniter import CroniterBadDateError, croniter
from pydantic import AfterValidator, BeforeValidator, Field, model_validator

from pipeline.engine.resources import OperatorSettings
from stages.encoders.embed import EmbedImages, EmbedSentences
from stages.filter.settings import Bounds
from stages.row_function import Settings

Location = Annotated[str, Field(min_length=1, pattern=r"^[^\x00]*$")]
Snapshot = Annotated[str, Field(min_length=1, max_length=100)]


def _share(value: object) -> object:
    """A share as a number, from "1%" too; ValueError for text that is neither."""
    if not isinstance(value, str):
        return value
    text = value.strip()
    try:
        return float(text.removesuffix("%")) / (100 if text.endswith("%") else 1)
    except ValueError:
        raise ValueError('write a share of the pages, as in "1%" or 0.01') from None


Share = Annotated[float, BeforeValidator(_share, json_schema_input_type=float | str), Field(gt=0, le=1)]


# Among `sitemaps`: those that the robots.txt of the seeds' hosts names.
ROBOTS_TXT = "robots.txt"


class SiteSource(Settings):
    """Pages found by following links from seeds, within the crawl's scope."""

    kind: Literal["site"]
    """site: pages found by following links."""
    seeds: list[str] = Field(min_length=1)
    """Absolute http or https URLs where the crawl starts."""
    sitemaps: tuple[str, ...] = Field(default=(), strict=False)
    """Sitemaps (sitemaps.org) whose pages are crawled too, on the level below the seeds and as far as they are in
    scope: URLs, or robots.txt for those that the robots.txt of the seeds' hosts names; indexes, gzip, text, RSS and
    Atom are read. Default: ours, none; some list what nobody is to find, or what is long gone."""
    snapshot: Snapshot = "default"
    """Name of the moment that is crawled. A page is fetched once a snapshot; a new name crawls afresh. Default: ours,
    one moment until another is named."""
    sample: Share = 1.0
    """Share of the pages that become documents, "1%" or 0.01, chosen by a hash of their URLs: what is in 1% is in 2%.
    The crawl itself is whole, as links are followed on every page. Default: ours, all, as a part must be asked for."""


class UrlsSource(Settings):
    """Pages listed one by one."""

    kind: Literal["urls"]
    """urls: pages listed one by one."""
    path: Location
    """Text file with a URL a line, or CSV with a column url."""
    snapshot: Snapshot = "default"
    """Name of the moment that is fetched, as for kind site. Default: ours, one moment until another is named."""
    sample: Share = 1.0
    """Share of the pages that are fetched, "1%" or 0.01, chosen by a hash of their URLs. Default: ours, all, as a part
    must be asked for."""


class HtmlSource(Settings):
    """A folder of HTML files, read from the disk; images are read there too, or fetched when they lie elsewhere."""

    kind: Literal["html"]
    """html: files of a folder."""
    path: Location
    """The folder, searched for *.html, *.htm and *.xhtml at any depth."""
    base_url: str
    """URL that the folder stands for; relative links resolve against it."""
    snapshot: Snapshot = "default"
    """Name of the moment that images outside the folder are fetched in. Default: ours, one moment until another is
    named."""
    sample: Share = 1.0
    """Share of the files that are read, "1%" or 0.01, chosen by a hash of their URLs. Default: ours, all, as a part
    must be asked for."""


class WarcSource(Settings):
    """WARC or ARC files, as Common Crawl publishes them."""

    kind: Literal["warc"]
    """warc: records of WARC or ARC files."""
    paths: list[Location] = Field(default=[])
    """Files that are read whole: files, globs, or URLs that fsspec opens (s3://…, https://…). Default: ours, none, as
    `rows` may stand instead."""
    rows: list[Location] = Field(default=[])
    """Files of rows that name captures, which are read by ranges: *.parquet with the columns of Common Crawl's columnar
    index (url, warc_filename, warc_record_offset, warc_record_length), any other as CDXJ lines. Files, globs, or URLs
    that fsspec opens. Default: ours, none, as `paths` may stand instead."""
    base: Location = "https://data.commoncrawl.org"
    """What the file names in `rows` are below of: a folder, or a URL (https://…, s3://…). Default: ours, Common Crawl's
    server, for rows of its index."""
    snapshot: Snapshot = "default"
    """Name of the moment that images are fetched in. Default: ours, one moment until another is named."""
    sample: Share = 1.0
    """Share of the pages whose captures are read, "1%" or 0.01, chosen by a hash of their URLs. Default: ours, all, as
    a part must be asked for."""

    @model_validator(mode="after")
    def _one_of_both(self) -> WarcSource:
        if bool(self.paths) == bool(self.rows):
            raise ValueError("give paths, files that are read whole, or rows, files that name captures")
        return self


class DocumentsSource(Settings):
    """Documents that were extracted elsewhere: their text and pictures are taken in the order they have."""

    kind: Literal["documents"]
    """documents: rows of files, a document each."""
    path: Location
    """File, glob or folder (searched at any depth) of *.parquet, *.jsonl, *.jsonl.gz and *.jsonl.zip, or a URL of one
    that fsspec opens (s3://…)."""
    layout: Literal["auto", "interloom", "obelics", "mmc4"] = "auto"
    """How a document is laid out in its row: our own (schemas/document.py), OBELICS' or MMC4's. Default: ours, auto,
    told for each file by the names of its columns."""
    snapshot: Snapshot = "default"
    """Name of the moment that images are fetched in. Default: ours, one moment until another is named."""
    sample: Share = 1.0
    """Share of the documents that are read, "1%" or 0.01, chosen by a hash of their URLs. Default: ours, all, as a part
    must be asked for."""


Source = Annotated[SiteSource | UrlsSource | HtmlSource | WarcSource | DocumentsSource, Field(discriminator="kind")]


class OutputSettings(Settings):
    """Where the corpus lies."""

    url: Location
    """Folder, or any fsspec URL with read-after-write (s3://bucket/prefix, gs://…)."""


class ReportSettings(Settings):
    """The HTML report."""

    documents: int = Field(default=12, ge=0, le=200)
    """Documents in the gallery, taken by id. Default: ours, what a person looks through."""
    examples_per_rule: int = Field(default=5, ge=0, le=50)
    """Dropped items shown for each rule. Default: ours, enough to see a bad rule."""
    max_megabytes: float = Field(default=8.0, gt=0)
    """Size the page keeps below by shrinking the gallery, megabytes. Default: ours, what a phone loads at once."""


class ExpectSettings(Settings):
    """What a finished corpus must be like; otherwise the build fails and `latest` stays where it was."""

    documents: Bounds = Bounds(min=1)
    """Documents in the shards. Default: ours, an empty corpus is a mistake."""
    images: Bounds = Bounds()
    """Images in the shards. Default: ours, open, as only you know your source."""
    negatives: Bounds = Bounds()
    """Mined negatives in the shards. Default: ours, open, as only you know your source."""
    images_fetched: Bounds = Bounds()
    """Share of image URLs that gave a usable picture, 0..1. Default: ours, open, as only you know your source."""
    documents_kept: Bounds = Bounds()
    """Share of extracted documents that reached the shards, 0..1. Default: ours, open, as only you know your source."""


class ResourcesSettings(Settings):
    """What a build may use; never part of a key, so that it never changes a byte."""

    workers: int | None = Field(default=None, ge=1, le=4096)
    """CPUs of a local Ray; null takes all. A cluster keeps its own number. Default: Ray's, all."""
    encoder_workers: int | None = Field(default=None, ge=1, le=4096)
    """Actors, a number, that hold encoders, for each that `operators` gives no number of its own; null takes one a
    GPU, else one a CPU. Default: ours, as an encoder fills the processor it runs on."""
    object_store_megabytes: int | None = Field(default=1024, ge=128, le=16_000_000)
    """Megabytes of memory for blocks on their way between workers, of a local Ray; null leaves it to Ray (30% of
    memory). Default: ours, several blocks a core, and room left for encoders on a small machine."""
    block_megabytes: float = Field(default=128.0, gt=0)
    """Megabytes above which a worker hands its rows on in several blocks. Default: Ray Data's 128 MiB."""
    small_rows: int = Field(default=256, ge=0, le=1_000_000)
    """Rows up to which a phase that reads no more is done by one worker, without a plan of Ray Data; 0 for none.
    Default: ours, as tasks and actors take seconds to start, and so many rows of most functions less."""
    operators: dict[str, OperatorSettings] = Field(default_factory=dict)
    """What single operators ask of Ray, by name: row functions (extract, embed_image), what comes before and after a
    model (embed_image.prepare), phases (pairs) and their exchanges (pairs.rows). Default: ours, none, as most fill one
    CPU each."""

    def of_operators(self) -> dict[str, OperatorSettings]:
        """`operators`, with `encoder_workers` for encoders that it gives no number of actors."""
        found = dict(self.operators)
        if self.encoder_workers is not None:
            for name in (EmbedImages.name, EmbedSentences.name):
                given = found.get(name, OperatorSettings())
                if given.min_workers is None and given.max_workers is None:
                    fixed = {"min_workers": self.encoder_workers, "max_workers": self.encoder_workers}
                    found[name] = given.model_copy(update=fixed)
        return found


class PricesSettings(Settings):
    """Prices for the cost line of the summary and report; zero where nobody pays."""

    currency: str = "USD"
    """Shown after amounts. Default: ours, as clouds quote their prices in it."""
    cpu_hour: float = Field(default=0.0, ge=0)
    """Price of one CPU for one hour, in currency. Default: ours, one's own machine costs nothing more."""
    gpu_hour: float = Field(default=0.0, ge=0)
    """Price of one GPU for one hour, in currency. Default: ours, one's own machine costs nothing more."""
    storage_gigabyte_month: float = Field(default=0.0, ge=0)
    """Price of one gigabyte kept for a month, in currency. Default: ours, one's own disk costs nothing more."""


def _due(cron: str) -> str:
    """A cron expression that comes due; ValueError for one that is none, that never does, or that is drawn by lot."""
    if len(cron.split()) != 5 and not cron.startswith("@"):
        raise ValueError("write minute, hour, day, month and weekday, as in 0 6 * * 1, or @daily or the like")
    if re.search(r"(?<![a-z])[hr](?![a-z])", cron.lower()):
        raise ValueError("H and R stand for moments drawn by lot, which are others at every look")
    try:
        croniter(cron).get_next()
    except CroniterBadDateError:
        raise ValueError("this day never comes") from None
    return cron


def _day(value: object) -> object:
    """A day as YAML has it, from its ISO text too: a card shows it in quotes. ValueError for text that is none."""
    return date.fromisoformat(value) if isinstance(value, str) else value


class ScheduleSettings(Settings):
    """When Airflow builds the corpus again, each time under a snapshot named by the date; never part of a key.

    The build itself does not look at it. `dags/corpus_build.py` reads it by itself, as it is copied to machines that
    have none of our packages.
    """

    cron: Annotated[str, AfterValidator(_due)]
    """Moments when a run is due: minute, hour, day, month, weekday; or @daily and the like."""
    start: Annotated[date, BeforeValidator(_day), Field(ge=date(2000, 1, 1), lt=date(2100, 1, 1))]
    """First day with runs, a date."""
    timezone: ZoneInfo = ZoneInfo("UTC")
    """Time zone of `cron`, `start` and the snapshots' names. Default: ours, the clock of most servers."""
    catchup: bool = False
    """Whether runs that were missed since `start` are made up for, one by one. Default: ours, as a site shows itself
    as it is now, whatever the date."""
    retention: int | None = Field(default=None, ge=1, le=1_000_000)
    """Versions, a number, that are kept when a run is done; null keeps all. What was fetched stays. Default: ours, as
    only you know what refers to a version."""
    train: Location | None = None
    """Recipe to train by on each new version: a packaged name or a path on the cluster; null trains nothing. Default:
    ours, a corpus is worth having by itself."""
    connection: Location = "ray_default"
    """Airflow connection of the cluster. Default: ours, as Airflow names its own."""
    working_dir: Annotated[str, Field(pattern="^/")] | None = None
    """Folder on Airflow's machines, an absolute path, that holds the spec and is uploaded with the job, as a checkout;
    null takes the spec's own folder. Default: ours, for an image that has interloom."""
    python: Location = "python"
    """Interpreter on the cluster. Default: ours, the one that an image has."""
