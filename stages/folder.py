"""Local folders as a source: HTML files as rows, as if a server had answered with them."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import replace
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any
from urllib.parse import quote_from_bytes, unquote_to_bytes, urlsplit

import pyarrow as pa
import xxhash

from stages.fetched import FETCHED, Consent, Failure, Fetched, fetched_table
from stages.urls import canonicalize

HTML_PATTERNS = ("*.html", "*.htm", "*.xhtml")

FOLDER_FETCHED = FETCHED.append(pa.field("file", pa.string(), nullable=False))  # relative to the folder, posix

_BATCH_BYTES = 64_000_000
_STEP = 1 << 20


def list_files(folder: str | Path, patterns: Sequence[str] = ("*",)) -> list[str]:
    """Relative posix paths of the files in a folder and its subfolders whose name fits a pattern, sorted.

    Patterns are those of fnmatch, compared without case ("*.html"). Links that lead out of the folder are left out.
    ValueError when there is no such folder.
    """
    root = Path(folder).resolve()
    if not root.is_dir():
        raise ValueError(f"{folder}: no such folder")
    lower = [pattern.lower() for pattern in patterns]
    found = []
    for parent, _, names in os.walk(root):
        for name in names:
            path = Path(parent, name)
            fits = any(fnmatchcase(name.lower(), pattern) for pattern in lower)
            if fits and path.is_file() and path.resolve().is_relative_to(root):
                found.append(path.relative_to(root).as_posix())
    return sorted(found)


def local_url(file: str, base_url: str) -> str:
    """Canonical URL of a file of a folder that is served at `base_url`."""
    return canonicalize(_folder_url(base_url) + quote_from_bytes(os.fsencode(file)))


def read_folder(
    folder: str | Path,
    base_url: str,
    *,
    max_bytes: int,
    patterns: Sequence[str] = HTML_PATTERNS,
    batch_rows: int = 64,
) -> Iterator[pa.Table]:
    """The HTML files of a folder by relative path, as FOLDER_FETCHED tables of up to `batch_rows` rows.

    `base_url`: where the folder would be served; it makes the pages' URLs. `modified` is null: file times differ
    between checkouts. Reasons: too_large, unreadable.
    """
    rows: list[dict[str, Any]] = []
    num_bytes = 0
    for file in list_files(folder, patterns):
        fetched = _read(Path(folder, file), local_url(file, base_url), max_bytes, "text/html")
        rows.append(fetched.row() | {"file": os.fsencode(file).decode("utf-8", "replace")})
        num_bytes += len(fetched.body or b"")
        if len(rows) >= batch_rows or num_bytes >= _BATCH_BYTES:
            yield pa.Table.from_pylist(rows, schema=FOLDER_FETCHED)
            rows, num_bytes = [], 0
    if rows:
        yield pa.Table.from_pylist(rows, schema=FOLDER_FETCHED)


def read_local(urls: Sequence[str], folder: str | Path, base_url: str, *, max_bytes: int) -> pa.Table:
    """Files that URLs at or below `base_url` stand for, a FETCHED row for each distinct canonical URL, in order.

    Queries are ignored. Reasons: bad_url, not_local (elsewhere), missing, too_large, unreadable.
    """
    root = Path(folder).resolve()
    base = urlsplit(_folder_url(base_url))
    rows: dict[str, Fetched] = {}
    for given in urls:
        try:
            url = canonicalize(given)
        except ValueError as error:
            rows[given] = Fetched(given, Consent(), failure=Failure("bad_url", str(error)))
            continue
        parts = urlsplit(url)
        if parts.netloc != base.netloc or not parts.path.startswith(base.path):
            rows[url] = Fetched(url, Consent(), failure=Failure("not_local", f"not below {base_url}"))
            continue
        relative = unquote_to_bytes(parts.path.removeprefix(base.path))
        # a null byte is no file name; an escaped slash or dot segment may lead out of the folder
        path = (root / os.fsdecode(relative).lstrip("/")).resolve() if b"\0" not in relative else None
        if path is None or not path.is_relative_to(root) or not path.is_file():
            rows[url] = Fetched(url, Consent(), failure=Failure("missing", "no such file in the folder"))
        else:
            rows[url] = _read(path, url, max_bytes, None)
    return fetched_table(rows.values())


def fingerprint(folder: str | Path, patterns: Sequence[str] = ("*",)) -> str:
    """xxh3-128 hex of a folder's content: relative path, size and content of every file, in path order.

    It changes with any byte and any name, and with nothing else.
    """
    digest = xxhash.xxh3_128()
    for file in list_files(folder, patterns):
        path = Path(folder, file)
        content = xxhash.xxh3_128()
        num_bytes = 0
        with path.open("rb") as stream:
            while block := stream.read(_STEP):
                content.update(block)
                num_bytes += len(block)
        digest.update(os.fsencode(file) + b"\0" + str(num_bytes).encode() + b"\0" + content.digest())
    return digest.hexdigest()


def _folder_url(base_url: str) -> str:
    url = canonicalize(base_url)
    return url if url.endswith("/") else url + "/"


def _read(path: Path, url: str, max_bytes: int, content_type: str | None) -> Fetched:
    fetched = Fetched(url, Consent(), final_url=url, content_type=content_type)
    try:
        with path.open("rb") as stream:
            body = stream.read(max_bytes + 1)
    except OSError as error:
        return replace(fetched, failure=Failure("unreadable", error.strerror or type(error).__name__))
    if len(body) > max_bytes:
        return replace(fetched, failure=Failure("too_large", f"more than {max_bytes} bytes", status="refused"))
    return replace(fetched, body=body)
