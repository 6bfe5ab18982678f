"""Documents that were extracted elsewhere: their files as units of work, and their rows as pages."""

from __future__ import annotations

import glob
import os
import re
from dataclasses import dataclass
from typing import Any, BinaryIO

import fsspec
import pyarrow as pa
import pyarrow.compute as pc

from pipeline.engine.keys import digest_json
from pipeline.engine.mistake import UserMistake
from pipeline.engine.storage import is_local, said
from pipeline.phases.files import file_state
from pipeline.spec.sections import DocumentsSource
from schemas.page import PAGE
from stages.sources.document_blocks import is_packed
from stages.sources.documents import PATTERNS, Piece, find_layout, read_headers
from stages.sources.sample import Sample

# Bytes of a file that one worker reads at a time, where it can be read in pieces.
UNIT_BYTES = 32 << 20
# Files that are looked at for one that is laid out as asked, before anything runs.
_LOOKED_AT = 20
_MAGIC = re.compile(r"[*?\[]")
_KINDS = tuple(pattern.removeprefix("*") for pattern in PATTERNS)


@dataclass(frozen=True)
class GivenFile:
    """A file of documents."""

    path: str  # as fsspec opens it
    name: str  # below the source's path
    size: int  # bytes


@dataclass(frozen=True)
class GivenPiece:
    """A unit of work: a piece of a file."""

    path: str
    piece: Piece


def given_files(source: DocumentsSource) -> list[GivenFile]:
    """Files behind the path, sorted by name; UserMistake for a path that stands for none."""
    found = _local_files(source.path.removeprefix("file://")) if is_local(source.path) else _remote_files(source.path)
    files = [each for each in found if each.name.lower().endswith(_KINDS)]
    if not files:
        what = "no such file" if not found else f"holds no file {', '.join(PATTERNS)}"
        raise UserMistake(f"source.path: {source.path}: {what}")
    return sorted(files, key=lambda each: each.name)


def _local_files(path: str) -> list[GivenFile]:
    if os.path.isdir(path):
        return [_local_file(each, path) for each in _below(path)]
    if os.path.isfile(path):
        return [_local_file(path, os.path.dirname(path))]
    matches = (each for each in glob.glob(path, recursive=True) if os.path.isfile(each))
    return [_local_file(each, os.path.dirname(_MAGIC.split(path)[0])) for each in matches]


def _below(folder: str) -> list[str]:
    """Files at any depth. Linked ones too, as a download cache has nothing else; linked folders are not entered."""

    def refuse(error: OSError) -> None:
        raise UserMistake(f"source.path: {error.filename}: {error.strerror}") from None

    found = [os.path.join(root, name) for root, _, names in os.walk(folder, onerror=refuse) for name in names]
    return [each for each in found if os.path.isfile(each)]


def _local_file(path: str, folder: str) -> GivenFile:
    return GivenFile(path, os.path.relpath(path, folder or "."), os.path.getsize(path))


def _remote_files(url: str) -> list[GivenFile]:
    try:
        filesystem, root = fsspec.core.url_to_fs(url)
        if _MAGIC.search(root):
            names, folder = filesystem.glob(root), _MAGIC.split(root)[0].rpartition("/")[0]
        elif filesystem.isdir(root):
            names, folder = filesystem.find(root), root
        else:
            names, folder = [root], root.rpartition("/")[0]
        sizes = [int(filesystem.size(each) or 0) for each in names]
    except Exception as error:  # each filesystem has its own errors; all are about this path
        raise UserMistake(f"source.path: {url}: cannot be read: {said(error)}") from None
    return [
        GivenFile(filesystem.unstrip_protocol(each), each.removeprefix(folder).lstrip("/"), size)
        for each, size in zip(names, sizes, strict=True)
    ]


def check_given(source: DocumentsSource) -> None:
    """UserMistake unless one of the first files is laid out as the source says; what is wrong with others is a row."""
    mistakes: list[str] = []
    for file in given_files(source)[:_LOOKED_AT]:
        try:
            with open_file(file.path) as stream:
                find_layout(stream, file.name, source.layout)
            return
        except ValueError as error:
            mistakes.append(f"source.path: {file.path}: {error}")
        except OSError as error:
            mistakes.append(f"source.path: {file.path}: cannot be read: {said(error)}")
    raise UserMistake(mistakes[0])


def given_pieces(source: DocumentsSource) -> list[GivenPiece]:
    """Units of work, in order."""
    found = []
    for file in given_files(source):
        count = 1 if is_packed(file.name) else max(1, -(-file.size // UNIT_BYTES))
        found += [GivenPiece(file.path, Piece(file.name, index, count)) for index in range(count)]
    return found


def given_fingerprint(source: DocumentsSource) -> str:
    """What the files hold, as it enters keys: of objects elsewhere the state that their store tells."""
    return digest_json([[file.name, file_state("source.path", file.path)] for file in given_files(source)])


def open_file(path: str) -> BinaryIO:
    """A file to read from anywhere."""
    opened: BinaryIO = fsspec.open(path, "rb").open()
    return opened


def read_pages(source: DocumentsSource, unit: GivenPiece, sample: Sample) -> pa.Table:
    """PAGE rows of a unit, without bodies."""
    with open_file(unit.path) as stream:
        tables = [_as_pages(table, source) for table in read_headers(stream, unit.piece, source.layout, sample)]
    return pa.concat_tables(tables) if tables else PAGE.empty_table()


def _as_pages(headers: pa.Table, source: DocumentsSource) -> pa.Table:
    count = headers.num_rows
    kind = PAGE.field("provenance").type
    provenance = pa.StructArray.from_arrays(
        [
            pa.repeat(pa.scalar(source.kind, pa.string()), count),
            pa.repeat(pa.scalar(source.snapshot, pa.string()), count),
            headers.column("file").combine_chunks(),
            headers.column("place").combine_chunks(),
            pa.nulls(count, pa.int64()),
        ],
        fields=list(kind),
    )
    usable = pc.is_null(headers.column("reason"))
    given: dict[str, Any] = {
        "page_id": headers.column("document_id"),
        "url": headers.column("url"),
        "final_url": pc.if_else(usable, headers.column("url"), None),
        "status": pc.if_else(usable, "ok", "error"),
        "reason": headers.column("reason"),
        "detail": headers.column("detail"),
        "retryable": pa.repeat(False, count),
        "provenance": provenance,
    }
    columns = [given.get(field.name, pa.nulls(count, field.type)) for field in PAGE]
    return pa.table(dict(zip(PAGE.names, columns, strict=True))).cast(PAGE)
