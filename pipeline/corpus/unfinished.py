"""Builds that ended before they were published, or have not ended: read as far as they came, like a version."""

from __future__ import annotations

from pipeline.corpus.records import build_command, build_ids, how_it_ended, newest_build, read_build
from pipeline.corpus.version import Corpus, latest, manifest_of, open_storage, version_manifest
from pipeline.engine.layout import BUILDS, REPORT, version_folder
from pipeline.engine.mistake import UserMistake
from pipeline.engine.storage import Storage
from pipeline.engine.table import Table, record_at
from schemas.build_record import FINISHED, BuildRecord


class UnfinishedBuild(Corpus):
    """The phases of a build up to the first that is not finished."""

    def __init__(self, storage: Storage, record: BuildRecord) -> None:
        finished: dict[str, Table] = {}
        for phase, place in record.phases.items():
            found = record_at(storage, place)
            if found is None:
                break
            finished[phase] = Table(storage, found)
        self.storage = storage
        self.record = record
        self.manifest = manifest_of(record.spec, list(finished.values()), {"built": record.updated})
        self.version = record.id
        self.called = f"build {record.id}"
        self.folder = version_folder(self.manifest.version)
        self.report = f"{BUILDS}/{record.id}/{REPORT}"
        self.ahead = tuple(phase for phase in record.phases if phase not in finished)
        self.caveat = how_it_ended(record, list(finished))
        self._said_by = f"{BUILDS}/{record.id}.json"


def open_corpus(url: str, version: str | None = None, build: str | None = None) -> tuple[Corpus, str]:
    """The version or the build that is named, else the newest build if it is not published, else `latest`.

    With it one line that says which it is. UserMistake and Damaged as Corpus, the former also for an unknown build and
    where no phase of the only build is finished.
    """
    if version is not None and build is not None:
        raise UserMistake("--version and --build: give one of them")
    if version is not None:
        return _version(url, version)
    storage = open_storage(url)
    if build is None:
        record = newest_build(storage)
        if record is None or record.state == FINISHED or (record.version and record.version == latest(storage)):
            return _version(url, None)
    else:
        record = read_build(storage, build)
        if record is None:
            there = ", ".join(build_ids(storage)) or "none"
            raise UserMistake(f"--corpus {url}: no build {build!r}; there are: {there}")
    if record.version and version_manifest(storage, record.version) is not None:
        return _complete(url, record)
    unfinished = UnfinishedBuild(storage, record)
    if unfinished.phases:
        return unfinished, unfinished.caveat
    if build is None and latest(storage) is not None:
        corpus, said = _version(url, None)
        return corpus, f"{said}; the newer {unfinished.caveat}"
    again = build_command(url, record)
    raise UserMistake(f"--corpus {url}: {unfinished.caveat}: there is nothing to read; go on with {again}")


def _version(url: str, version: str | None) -> tuple[Corpus, str]:
    corpus = Corpus(url, version)
    built = corpus.manifest.run.get("built")
    return corpus, corpus.called + (f", built {built}" if built else "")


def _complete(url: str, record: BuildRecord) -> tuple[Corpus, str]:
    """A build's version; of one that failed after it was made, as by its expectations, with what is wrong with it."""
    corpus, said = _version(url, record.version)
    corpus.record = record
    if record.state != FINISHED and record.version != latest(corpus.storage):
        corpus.caveat = how_it_ended(record, list(record.phases))
        said = f"{corpus.called}, not published: {corpus.caveat}"
    return corpus, said
