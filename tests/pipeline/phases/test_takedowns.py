"""Takedowns: what a list says, whom it is about, and how rows look that it takes down."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from pipeline.engine.damage import Damaged
from pipeline.engine.storage import Storage
from pipeline.phases.graph import graph
from pipeline.phases.takedowns import (
    FOLDER,
    Takedowns,
    crawl_without,
    read_entries,
    takedowns_of,
    without_content,
    write_entries,
)
from pipeline.spec.loading import Spec
from schemas.keys import digest
from schemas.page import PAGE
from schemas.takedown import Entry
from stages.web.consent.excluded import hashed, is_excluded
from stages.web.fetched import FETCHED
from stages.web.settings import CrawlSettings

BODY = b"<p>a body"
SHA256 = hashlib.sha256(BODY).hexdigest()


def entry(kind: str, name: str, rule: str = "forgotten", snapshot: str = "") -> Entry:
    return Entry(kind, name if kind == "sha256" else hashed(name), rule, "because", snapshot)


def taken(*entries: Entry) -> Takedowns:
    return Takedowns({(each.kind, each.hash): each for each in entries})


def spec(folder: Path, snapshot: str = "one") -> Spec:
    source = {"kind": "site", "seeds": ["http://h.test/"], "snapshot": snapshot}
    return Spec.model_validate({"name": "a", "output": {"url": str(folder)}, "source": source})


@pytest.mark.parametrize(
    ("given", "inside", "outside"),
    [
        (
            entry("url", "http://h.test/a"),
            ["http://h.test/a"],
            ["http://h.test/a?b", "https://h.test/a", "no URL", ""],
        ),
        (entry("host", "h.test"), ["http://h.test/", "https://h.test:81/a", "http://www.h.test/"], ["http://xh.test/"]),
        (entry("host", "h.test:81"), ["http://h.test:81/"], ["http://h.test/", "http://www.h.test:81/"]),
        (entry("sha256", SHA256), [], ["http://h.test/a"]),
    ],
)
def test_what_an_entry_is_about(given: Entry, inside: list[str], outside: list[str]) -> None:
    assert [url for url in inside if taken(given).of_url(url) != given] == []
    assert [url for url in outside if taken(given).of_url(url) is not None] == []
    # What is to be forgotten is not even asked for, and the spec says no more of it than its hash.
    excluded = crawl_without(CrawlSettings(), taken(given)).excluded
    assert [url for url in inside if not is_excluded(url, excluded)] == []
    assert [url for url in outside if is_excluded(url, excluded)] == []
    assert all(each.startswith("sha256:") for each in excluded)
    CrawlSettings(excluded=excluded)


def test_a_user_may_exclude_by_name() -> None:
    settings = CrawlSettings(excluded=("h.test", "http://i.test/a", "127.0.0.1:80", f"sha256:{hashed('j.test')}"))
    for url in ("http://h.test/x", "http://www.h.test/", "http://i.test/a", "http://127.0.0.1:80/", "http://j.test/"):
        assert is_excluded(url, settings.excluded)
    assert not is_excluded("http://i.test/b", settings.excluded)
    for wrong in ("", "two words", "sha256:xyz", "ftp://h/"):
        with pytest.raises(ValueError, match="excluded"):
            CrawlSettings(excluded=(wrong,))


def row(url: str, **more: Any) -> dict[str, Any]:
    base = {"url": url, "final_url": url, "status": "ok", "retryable": False, "http_status": 200, "body": BODY}
    return {**base, "content_hash": "c", "consent": {"agent": "a"}, **more}


def test_rows_that_are_taken_down_are_refused_and_hold_nothing() -> None:
    rows = [row("http://h.test/a"), row("http://i.test/", final_url="http://h.test/a"), row("http://i.test/b")]
    rows += [row("http://i.test/c", body=b"another"), row("http://h.test/a", status="error", reason="dns", body=None)]
    table = pa.Table.from_pylist(rows, schema=FETCHED)
    by_url, by_content = taken(entry("url", "http://h.test/a")), taken(entry("sha256", SHA256, "withdrawn"))
    made = by_url.refused(table)
    assert made.schema == table.schema
    assert made.column("reason").to_pylist() == ["forgotten", "forgotten", None, None, "forgotten"]
    assert by_content.refused(table).column("reason").to_pylist() == ["withdrawn"] * 3 + [None, "dns"]
    first, _, third, *_ = made.to_pylist()
    kept = {name: value for name, value in first.items() if value is not None}
    assert kept.pop("consent")["agent"] == "a"
    assert kept == {
        "url": "http://h.test/a",
        "status": "refused",
        "reason": "forgotten",
        "detail": "because",
        "retryable": False,
    }
    assert third == table.to_pylist()[2]
    assert Takedowns().refused(table) is table and by_url.refused(table.slice(2, 2)) == table.slice(2, 2)


def test_pages_with_bodies_elsewhere_are_refused_alike() -> None:
    locator = {"pack": "p", "offset": 0, "length": 3, "hash": 1}
    page = {"page_id": "0" * 32, "url": "http://h.test/a", "status": "ok", "depth": 2, "body": locator}
    (made,) = taken(entry("host", "test")).refused(pa.Table.from_pylist([page], schema=PAGE)).to_pylist()
    assert (made["page_id"], made["depth"], made["status"], made["body"]) == ("0" * 32, 2, "refused", None)


def test_an_image_goes_by_its_bytes_as_fetched_or_as_stored() -> None:
    image = {"content_key": "k", "image_id": "i", "url": "u", "status": "ok", "reason": None, "detail": None}
    image |= {"retryable": False, "original_hash": "a" * 64, "sha256": "b" * 64, "body": {}, "documents": ["d"]}
    image |= {"consent": None, "num_documents": 3}
    for name in ("a", "b"):
        made = without_content(image, taken(entry("sha256", name * 64)))
        assert made.keys() == image.keys()
        assert (made["status"], made["reason"], made["sha256"], made["body"]) == ("refused", "forgotten", None, None)
        assert (made["content_key"], made["documents"], made["num_documents"]) == ("k", ["d"], 3)
    assert without_content(image, taken(entry("sha256", "c" * 64))) is image


def test_lists_are_remembered_as_hashes_and_written_once(tmp_path: Path) -> None:
    storage = Storage(str(tmp_path))
    wanted = [entry("url", "http://h.test/a"), entry("host", "i.test")]
    assert len(write_entries(storage, wanted)) == 2
    assert write_entries(storage, [*wanted, *wanted]) == []
    assert len(write_entries(storage, [*wanted, entry("url", "http://h.test/b")])) == 1
    said = b"".join(path.read_bytes() for path in (tmp_path / FOLDER).iterdir())
    assert len(list((tmp_path / FOLDER).iterdir())) == 2
    assert b"h.test" not in said and b"i.test" not in said
    assert len(read_entries(storage)) == 3
    (tmp_path / FOLDER / "x.json").write_text('{"takedown_version": 1, "entries": [{"kind": "page"}]}')
    with pytest.raises(Damaged, match=r"x\.json"):
        read_entries(storage)


def test_what_is_taken_down_is_in_the_keys_of_what_lets_things_in(tmp_path: Path) -> None:
    def keys(snapshot: str) -> dict[str, Any]:
        return {phase.name: phase.settings.get("takedowns") for phase in graph(spec(tmp_path, snapshot))}

    assert not any(keys("one").values())
    write_entries(Storage(str(tmp_path)), [entry("url", "http://h.test/a", "withdrawn", digest("one"))])
    assert {name for name, value in keys("one").items() if value} == {"pages", "fetched_images", "images"}
    # Another snapshot asks the site itself; what is forgotten is so in all of them.
    assert not any(keys("two").values())
    write_entries(Storage(str(tmp_path)), [entry("host", "h.test")])
    assert (
        any(keys("two").values()) and takedowns_of(spec(tmp_path)).digest != takedowns_of(spec(tmp_path, "two")).digest
    )
