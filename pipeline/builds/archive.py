"""WARC out: what a version's pages and pictures were made of, as WARC files.

DIR/archive.json                          of which version, and cut at how many bytes
DIR/pages-<part>-<number>.warc.gz         captures of pages; images-… of pictures
DIR/pages-<part>.json                     of a part that is done: its files

A part of a table is archived by itself, and its list comes after its files, so that a run that was stopped goes on with
the part it was at. Names and bytes follow from the version and the cut alone.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal

import pyarrow as pa
import pyarrow.compute as pc

from pipeline.corpus.version import Corpus
from pipeline.engine.credentials import refuse_credentials
from pipeline.engine.damage import Damaged
from pipeline.engine.mistake import UserMistake
from pipeline.engine.packs import read_packed
from pipeline.engine.storage import Storage, StorageError
from pipeline.engine.table import read_listed
from pipeline.phases.sources import lies_in_folder
from pipeline.phases.takedowns import Takedowns, takedowns_of
from pipeline.spec.loading import Spec
from pipeline.spec.sections import DocumentsSource, HtmlSource
from stages.sources.warc_capture import Capture, WarcWriter
from stages.web.consent.signals import Signal
from stages.web.fetched import Consent

# What is held beside the file that is being made: bodies on their way into it.
_AT_A_TIME = 32_000_000
_ARCHIVE = "archive.json"
_VERSION = 1


@dataclass
class Archived:
    """What was written, or was there."""

    files: int = 0
    bytes: int = 0
    captures: int = 0
    kept: int = 0  # of the files, those that an earlier run had written


@dataclass(frozen=True)
class _Kind:
    name: Literal["page", "image"]
    phase: str
    id: str  # its column

    @property
    def prefix(self) -> str:
        return f"{self.name}s"


_PAGES = _Kind("page", "pages", "page_id")
_IMAGES = _Kind("image", "fetched_images", "image_id")


def archive(corpus: Corpus, spec: Spec, to: str, target_bytes: int) -> Archived:
    """Write the captures of a version into a folder, files of about `target_bytes`, and go on where a run was stopped.

    Pages and pictures that came over the network are written, with what was refused or failed; what was forgotten
    since is not. UserMistake where the folder holds something else.
    """
    storage = _folder(to)
    about = {"archive_version": _VERSION, "version": corpus.version, "target_bytes": target_bytes}
    _begin(storage, about)
    done = Archived()
    taken = takedowns_of(spec)
    # Pages of a folder and of files of documents have not come over the network, nor have pictures beside them.
    pages = () if isinstance(spec.source, HtmlSource | DocumentsSource) else (_PAGES,)
    for kind in (*pages, _IMAGES):
        if kind.phase not in corpus.phases:
            continue
        for number, part in enumerate(corpus.table(kind.phase).parts):
            listed = f"{kind.prefix}-{number:05d}.json"
            files = _there(storage, listed)
            if files is not None:
                done.kept += len(files)
            else:
                rows = taken.refused(read_listed(corpus.storage, part))
                captures = _captures(corpus, spec, taken, kind, rows)
                files = _write(corpus, storage, f"{kind.prefix}-{number:05d}", captures, target_bytes)
                storage.write(listed, _json({"files": files}))
            done.files += len(files)
            done.bytes += sum(each["bytes"] for each in files)
            done.captures += sum(each["captures"] for each in files)
    return done


def _folder(to: str) -> Storage:
    refuse_credentials("--to", to)
    try:
        storage = Storage(to)
        storage.ask(_ARCHIVE)
        if storage.names("versions"):
            raise UserMistake(f"--to {to} is a corpus: name another folder")
    except (StorageError, NotADirectoryError) as error:
        raise UserMistake(f"--to {to}: {error}") from None
    return storage


def _begin(storage: Storage, about: Mapping[str, object]) -> None:
    try:
        there = json.loads(storage.read(_ARCHIVE))
    except FileNotFoundError:
        storage.write(_ARCHIVE, _json(about))
        return
    except ValueError:
        there = None
    if there != about:
        raise UserMistake(
            f"--to {storage}: its {_ARCHIVE} is of another version, --target-bytes or release: name another folder"
        )


def _there(storage: Storage, listed: str) -> list[dict[str, Any]] | None:
    """Files of a part that is done, all there in their sizes; null for one that is not."""
    try:
        files: list[dict[str, Any]] = json.loads(storage.read(listed))["files"]
        whole = all(storage.exists(each["name"]) and storage.size(each["name"]) == each["bytes"] for each in files)
    except (FileNotFoundError, ValueError, KeyError, TypeError):
        return None
    return files if whole else None


def _write(
    corpus: Corpus, storage: Storage, prefix: str, captures: Iterator[Capture], target_bytes: int
) -> list[dict[str, Any]]:
    files: list[dict[str, Any]] = []
    built = str(corpus.manifest.run["built"])
    about = {
        "software": "interloom",
        "isPartOf": f"{corpus.manifest.name} {corpus.version}",
        "description": "headers as far as the corpus keeps them, bodies without codings; dates are the version's",
    }
    writer: WarcWriter | None = None
    data, number = bytearray(), 0

    def put() -> None:
        assert writer is not None
        storage.write(writer.name, bytes(data))
        files.append({"name": writer.name, "bytes": len(data), "captures": number})

    for capture in captures:
        if writer is not None and len(data) >= target_bytes:
            put()
            writer = None
        if writer is None:
            writer = WarcWriter(f"{prefix}-{len(files):05d}.warc.gz", built, about)
            data, number = bytearray(writer.head()), 0
        for record in writer.records(capture):
            data += record
        number += 1
    if writer is not None:
        put()
    return files


def _captures(corpus: Corpus, spec: Spec, taken: Takedowns, kind: _Kind, rows: pa.Table) -> Iterator[Capture]:
    """Captures of a part's rows, those of the same content beside each other."""
    urls = rows.column("url").to_pylist()
    came = [url.startswith(("http://", "https://")) and not lies_in_folder(spec.source, url) for url in urls]
    rows = rows.filter(pa.array(came, pa.bool_()))
    first: dict[str | None, int] = {}
    places = [
        (index if content is None else first.setdefault(content, index), index)
        for index, content in enumerate(rows.column("content_hash").to_pylist())
    ]
    rows = rows.take(pa.array([index for _, index in sorted(places)], pa.int64()))
    sizes = [each or 0 for each in pc.struct_field(rows.column("body"), "length").to_pylist()]
    start = 0
    while start < len(sizes):
        end, size = start + 1, sizes[start]
        while end < len(sizes) and size + sizes[end] <= _AT_A_TIME:
            size += sizes[end]
            end += 1
        yield from _loaded(corpus, taken, kind, rows.slice(start, end - start))
        start = end


def _loaded(corpus: Corpus, taken: Takedowns, kind: _Kind, rows: pa.Table) -> Iterator[Capture]:
    try:
        bodies = read_packed(corpus.storage, rows.column("body"))
    except Damaged:
        if not taken.entries:
            raise
        raise UserMistake(
            f"--corpus {corpus.storage}: {corpus.called} holds what was forgotten since (pipeline.consent --forget): "
            "build again, and archive the version that this makes"
        ) from None
    place = rows.schema.get_field_index("body")
    rows = taken.refused(rows.set_column(place, "body", pa.array(bodies, pa.large_binary())))
    for row in rows.to_pylist():
        yield Capture(
            kind.name,
            row[kind.id],
            row["url"],
            row.get("final_url") or row["url"],
            row["status"],
            _consent(row["consent"]),
            reason=row["reason"],
            detail=row["detail"],
            http_status=row.get("http_status"),
            content_type=row["content_type"],
            modified=row.get("modified"),
            body=row["body"] if row["status"] == "ok" else None,
        )


def _consent(row: dict[str, Any] | None) -> Consent:
    if row is None:
        return Consent()
    signals = tuple(Signal(each["signal"], each["said"]) for each in row["signals"] or ())
    return Consent(**{**row, "signals": signals})


def _json(value: object) -> bytes:
    return (json.dumps(value, indent=1, sort_keys=True) + "\n").encode()
