"""Local folders as a source: HTML files as rows, as if a server had answered with them."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator, Sequence
from dataclasses import replace
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any
from urllib.parse import quote_from_bytes, unquote_to_bytes, urlsplit

import pyarrow as pa
import xxhash

from stages.sources.sample import Sample
from stages.web.fetched import FETCHED, Consent, Failure, Fetched, fetched_table
from stages.web.urls import canonicalize

HTML_PATTERNS = ("*.html", "*.htm", "*.xhtml")

FOLDER_FETCHED = FETCHED.append(pa.field("file", pa.string(), nullable=False))  # relative to the folder, posix

_BATCH_BYTES = 64_000_000
_STEP = 1 << 20


def list_files(folder: str | Path, patterns: Sequence[str] = ("*",)) -> list[str]:
    """Relative posix paths of the files in a folder and its subfolders whose name fits a pattern, sorted.

    Patterns are those of fnmatch, compared without case ("*.html"). Links that lead out of the folder, pipes and the
    like are left out. ValueError when there is no such folder.
    """
    return [file for file, failure in _entries(folder, patterns) if failure is None]


def _entries(folder: str | Path, patterns: Sequence[str]) -> list[tuple[str, Failure | None]]:
    """(relative posix path, None or why it is not read) of what fits a pattern, by path; ValueError without a folder.

    A subfolder that cannot be entered is there whatever its name, and stands for all below it, as is a link to a
    folder elsewhere; their paths end with a slash. A linked folder of the folder itself is read where it lies.
    """
    root = os.path.realpath(folder)
    if not os.path.isdir(root):
        raise ValueError(f"{folder}: no such folder")
    lower = [pattern.lower() for pattern in patterns]
    found: list[tuple[str, Failure | None]] = []
    waiting = [root]
    while waiting:
        parent = waiting.pop()
        try:
            names = os.listdir(parent)
        except OSError as error:
            if parent == root:
                raise ValueError(f"{folder}: {error.strerror}") from None
            found.append((_relative(parent, root) + "/", _unreadable(error)))
            continue
        for name in names:
            path = os.path.join(parent, name)
            fits = any(fnmatchcase(name.lower(), pattern) for pattern in lower)
            if os.path.isdir(path):
                if not os.path.islink(path):
                    waiting.append(path)
                elif fits or not _within(path, root):
                    found.append(
                        (_relative(path, root) + "/", _not_a_file("a link to a folder, which is not followed"))
                    )
            elif fits:
                found.append((_relative(path, root), _why_not(path, root)))
    return sorted(found, key=lambda entry: entry[0])


def _relative(path: str, root: str) -> str:
    return Path(path).relative_to(root).as_posix()


def _within(path: str, root: str) -> bool:
    return Path(os.path.realpath(path)).is_relative_to(root)


def _why_not(path: str, root: str) -> Failure | None:
    """Why something in a folder is not read as a file of it, None for a file."""
    if os.path.islink(path) and not _within(path, root):
        return _not_a_file("a link that leads out of the folder")
    try:
        mode = os.stat(path).st_mode
    except FileNotFoundError:
        return _not_a_file("a link to nothing")
    except OSError as error:
        return _unreadable(error)
    return None if stat.S_ISREG(mode) else _not_a_file("a pipe, a socket or a device")


def _not_a_file(detail: str) -> Failure:
    return Failure("not_a_file", detail, status="refused")


def _unreadable(error: OSError) -> Failure:
    return Failure("unreadable", error.strerror or type(error).__name__)


def local_url(file: str, base_url: str) -> str:
    """Canonical URL of a file of a folder that is served at `base_url`; ValueError for a path too long for one."""
    return canonicalize(_folder_url(base_url) + _quoted(file))


def _quoted(file: str) -> str:
    return quote_from_bytes(os.fsencode(file))


def read_folder(
    folder: str | Path,
    base_url: str,
    *,
    max_bytes: int,
    patterns: Sequence[str] = HTML_PATTERNS,
    batch_rows: int = 64,
    sample: Sample | None = None,
) -> Iterator[pa.Table]:
    """The HTML files of a folder by relative path, as FOLDER_FETCHED tables of up to `batch_rows` rows.

    Files outside the `sample` are not read.

    `base_url`: where the folder would be served; it makes the pages' URLs. `modified` is null: file times differ
    between checkouts. What is named like a page and is no file of the folder is a row too, and so is a subfolder that
    cannot be entered, as the URL of the folder. Reasons: bad_url, not_a_file, too_large, unreadable.
    """
    rows: list[dict[str, Any]] = []
    num_bytes = 0
    for file, failure in _entries(folder, patterns):
        try:
            url = local_url(file, base_url)
        except ValueError as error:
            url, failure = _folder_url(base_url) + _quoted(file), failure or Failure("bad_url", str(error))
        if sample is not None and not sample.takes(url):
            continue
        if failure is None:
            fetched = _read(Path(folder, file), url, max_bytes, "text/html")
        else:
            fetched = Fetched(url, Consent(), failure=failure)
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
        path = os.path.realpath(root / os.fsdecode(relative).lstrip("/")) if b"\0" not in relative else None
        # os.path takes what pathlib raises on, links in a circle and names too long for a file, for absent
        if path is None or not Path(path).is_relative_to(root) or not os.path.isfile(path):
            rows[url] = Fetched(url, Consent(), failure=Failure("missing", "no such file in the folder"))
        else:
            rows[url] = _read(Path(path), url, max_bytes, None)
    return fetched_table(rows.values())


def fingerprint(folder: str | Path, patterns: Sequence[str] = ("*",)) -> str:
    """xxh3-128 hex of a folder's content: relative path, size and content of every file, in path order.

    It changes with any byte and any name, with what keeps a file from being read, and with nothing else.
    """
    digest = xxhash.xxh3_128()
    for file, failure in _entries(folder, patterns):
        try:
            state = _unread(failure) if failure else _content(Path(folder, file))
        except OSError as error:
            state = _unread(_unreadable(error))
        digest.update(os.fsencode(file) + b"\0" + state)
    return digest.hexdigest()


def _content(path: Path) -> bytes:
    content = xxhash.xxh3_128()
    num_bytes = 0
    with path.open("rb") as stream:
        while block := stream.read(_STEP):
            content.update(block)
            num_bytes += len(block)
    return str(num_bytes).encode() + b"\0" + content.digest()


def _unread(failure: Failure) -> bytes:
    return f"{failure.reason}: {failure.detail}".encode() + b"\0"


def _folder_url(base_url: str) -> str:
    url = canonicalize(base_url)
    return url if url.endswith("/") else url + "/"


def _read(path: Path, url: str, max_bytes: int, content_type: str | None) -> Fetched:
    fetched = Fetched(url, Consent(), final_url=url, content_type=content_type)
    try:
        with path.open("rb") as stream:
            body = stream.read(max_bytes + 1)
    except OSError as error:
        return replace(fetched, failure=_unreadable(error))
    if len(body) > max_bytes:
        return replace(fetched, failure=Failure("too_large", f"more than {max_bytes} bytes", status="refused"))
    return replace(fetched, body=body)
