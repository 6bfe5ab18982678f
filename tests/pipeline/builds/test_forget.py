"""Forgetting: rows and bytes are gone from the stores, others stay, and after a kill it is gone on with."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import xxhash

from pipeline.builds.forget import SWEPT, Forgotten, entry_of, forget
from pipeline.engine.damage import Damaged
from pipeline.engine.key_range import WHOLE
from pipeline.engine.memo import RETRYABLE, row_keys
from pipeline.engine.mistake import UserMistake
from pipeline.engine.packs import read_packed
from pipeline.engine.row_store import GENERATION, LOOSE, ROW_KEY, RowStore, parquet_bytes
from pipeline.engine.storage import Storage
from pipeline.phases.fetching import POLICY, fetch_key
from pipeline.phases.takedowns import FOLDER, read_entries
from stages.extract import OUTPUT as EXTRACTED
from stages.images.decode import OUTPUT as DECODED
from stages.web.fetched import FETCHED
from stages.web.urls import url_id

PAGES = {
    "http://a.test/1": b"<p>the first secret",
    "http://a.test/2": b"<p>the second page",
    "http://www.b.test/": b"<p>the third page",
}
PICTURES = {
    "http://a.test/1.png": b"the first picture",
    "http://a.test/copy.png": b"the first picture",
    "http://b.test/2.png": b"the second picture",
}


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def stored(picture: bytes) -> bytes:
    """What decoding makes of a picture."""
    return b"decoded " + picture


class Stores:
    """Row stores of a corpus, as a build leaves them."""

    def __init__(self, folder: Path) -> None:
        self.storage = Storage(str(folder))
        self.folder = folder
        self._fetched("fetch_page", PAGES)
        self._fetched("fetch_image", PICTURES)
        pages = pa.table(
            {
                "page_id": [url_id(url) for url in PAGES],
                "url": list(PAGES),
                "content_type": ["text/html"] * len(PAGES),
                "content_hash": [xxhash.xxh3_128_hexdigest(body) for body in PAGES.values()],
            }
        )
        texts = [{"url": url, "nodes": [{"text": body.decode()}], "dropped": []} for url, body in PAGES.items()]
        self.extract = self._computed("extract", EXTRACTED, texts)
        self._put(self.extract, texts, row_keys(pages, "page_id", ("url", "content_type", "content_hash")).to_pylist())
        distinct = {xxhash.xxh3_128_hexdigest(body): body for body in PICTURES.values()}
        facts = [
            {"status": "ok", "original_hash": sha256(each), "sha256": sha256(stored(each)), "body": stored(each)}
            for each in distinct.values()
        ]
        self.decode = self._computed("decode_image", DECODED, facts)
        keys = row_keys(pa.table({"content_key": list(distinct)}), "content_key", ("content_key",))
        self._put(self.decode, facts, keys.to_pylist())

    def _fetched(self, function: str, bodies: dict[str, bytes]) -> None:
        rows = [
            {
                "url": url,
                "final_url": url,
                "status": "ok",
                "retryable": False,
                "content_type": "text/html" if function == "fetch_page" else "image/png",
                "content_hash": xxhash.xxh3_128_hexdigest(body),
                "consent": {},
                "body": body,
                "policy": "{}",
            }
            for url, body in bodies.items()
        ]
        store = RowStore(self.storage, function, "snapshot", pa.schema([*FETCHED, POLICY]))
        self._put(store, rows, [fetch_key(url, "{}") for url in bodies])

    def _computed(self, function: str, output: pa.Schema, rows: list[dict[str, Any]]) -> RowStore:
        return RowStore(self.storage, function, "key", pa.schema([*output, RETRYABLE]))

    def _put(self, store: RowStore, rows: list[dict[str, Any]], keys: list[str]) -> None:
        plain = pa.schema(
            [each.with_type(pa.large_binary()) if pa.types.is_struct(each.type) and each.name == "body" else each
             for each in store.schema]
        )  # fmt: skip
        told = [{**row, ROW_KEY: key, GENERATION: 0} for row, key in zip(rows, keys, strict=True)]
        # One compacted, the others as they were flushed.
        store.append(pa.Table.from_pylist(told[:1], schema=plain))
        store.compact(WHOLE)
        store.append(pa.Table.from_pylist(told[1:], schema=plain))

    def holds(self, words: bytes) -> bool:
        """Whether bytes stand in any file of the stores."""
        return any(words in path.read_bytes() for path in (self.folder / "rows").rglob("*") if path.is_file())

    def bodies(self, function: str) -> dict[str, bytes | None]:
        """What a store says it has, read as a build reads it."""
        kind = pa.schema([*FETCHED, POLICY])
        rows = RowStore(self.storage, function, "snapshot", kind).read()
        values = read_packed(self.storage, rows.column("body"))
        return dict(zip(rows.column("url").to_pylist(), values, strict=True))

    def texts(self) -> set[str]:
        rows = RowStore(self.storage, "extract", "key", pa.schema([*EXTRACTED, RETRYABLE])).read()
        return set(rows.column("url").to_pylist())

    def decoded(self) -> set[bytes | None]:
        rows = RowStore(self.storage, "decode_image", "key", pa.schema([*DECODED, RETRYABLE])).read()
        return set(read_packed(self.storage, rows.column("body")))


@pytest.fixture
def stores(tmp_path: Path) -> Stores:
    return Stores(tmp_path)


def test_a_page_goes_from_every_store_and_its_neighbours_stay(stores: Stores) -> None:
    assert stores.holds(b"the first secret")
    went = forget(stores.storage, [entry_of("http://A.test:80/x/../1#part", "asked")])
    assert went == Forgotten(new=1, rows=2, overwritten=len(PAGES["http://a.test/1"]))
    assert not stores.holds(b"the first secret")
    assert stores.bodies("fetch_page") == {url: body for url, body in PAGES.items() if url != "http://a.test/1"}
    assert stores.texts() == set(PAGES) - {"http://a.test/1"}
    assert stores.bodies("fetch_image") == PICTURES and stores.decoded() == set(map(stored, PICTURES.values()))
    again = forget(stores.storage, [entry_of("http://a.test/1", "asked again")])
    assert again == Forgotten()


def test_a_host_stands_for_all_below_it(stores: Stores) -> None:
    forget(stores.storage, [entry_of("B.test", "asked")])
    assert set(stores.bodies("fetch_page")) == {"http://a.test/1", "http://a.test/2"}
    assert set(stores.bodies("fetch_image")) == {"http://a.test/1.png", "http://a.test/copy.png"}
    assert not stores.holds(b"the third page") and not stores.holds(b"the second picture")
    assert stores.decoded() == {stored(b"the first picture")}


def test_what_another_page_shows_too_stays_decoded(stores: Stores) -> None:
    forget(stores.storage, [entry_of("http://a.test/1.png", "asked")])
    assert set(stores.bodies("fetch_image")) == {"http://a.test/copy.png", "http://b.test/2.png"}
    assert stored(b"the first picture") in stores.decoded()
    forget(stores.storage, [entry_of("http://a.test/copy.png", "asked")])
    assert stores.decoded() == {stored(b"the second picture")} and not stores.holds(b"the first picture")


@pytest.mark.parametrize("name", [sha256(b"the first picture"), sha256(stored(b"the first picture")).upper()])
def test_content_goes_wherever_it_was_fetched(stores: Stores, name: str) -> None:
    forget(stores.storage, [entry_of(name, "asked")])
    assert set(stores.bodies("fetch_image")) == {"http://b.test/2.png"}
    assert stores.decoded() == {stored(b"the second picture")} and not stores.holds(b"the first picture")
    # Its addresses are remembered too, so that it is not fetched again, and so is the original of what was stored.
    kinds = sorted(each.kind for each in read_entries(stores.storage))
    assert kinds == ["sha256"] * (1 + (name.lower() != sha256(b"the first picture"))) + ["url", "url"]


def test_content_that_nothing_decoded_is_found_by_its_bytes(stores: Stores) -> None:
    forget(stores.storage, [entry_of(sha256(PAGES["http://a.test/2"]), "asked")])
    assert "http://a.test/2" not in stores.bodies("fetch_page") and "http://a.test/2" not in stores.texts()
    assert not stores.holds(b"the second page")


def test_locators_of_others_hold_and_those_of_the_forgotten_read_as_damaged(stores: Stores) -> None:
    kind = pa.schema([*FETCHED, POLICY])
    before = RowStore(stores.storage, "fetch_page", "snapshot", kind).read()
    forget(stores.storage, [entry_of("http://a.test/2", "asked")])
    for url, locator in zip(before.column("url").to_pylist(), before.column("body"), strict=True):
        column = pa.array([locator.as_py()], before.schema.field("body").type)
        if url == "http://a.test/2":
            with pytest.raises(Damaged):
                read_packed(stores.storage, column)
        else:
            assert read_packed(stores.storage, column) == [PAGES[url]]


def test_values_that_rows_share_stay_for_the_rows_that_stay(stores: Stores) -> None:
    shared = b"a picture under two addresses"
    urls = ["http://c.test/3.png", "http://c.test/4.png"]
    store = RowStore(stores.storage, "fetch_image", "snapshot", pa.schema([*FETCHED, POLICY]))
    store.compact(WHOLE)
    for url in urls:  # compacted apart, each is all that there is of a pack
        stores._fetched("fetch_image", {url: shared})
    read = RowStore(stores.storage, "fetch_image", "snapshot", pa.schema([*FETCHED, POLICY])).read().to_pylist()
    assert len({row["body"]["pack"] for row in read if row["url"] in urls}) == 1
    assert forget(stores.storage, [entry_of(urls[0], "asked")]) == Forgotten(new=1, rows=1, overwritten=0)
    assert stores.bodies("fetch_image") == {**PICTURES, urls[1]: shared}
    forget(stores.storage, [entry_of(urls[1], "asked")])
    assert stores.bodies("fetch_image") == PICTURES and not stores.holds(shared)


def test_what_earlier_releases_stored_is_forgotten_too(stores: Stores) -> None:
    """Their locators had no hash, and their files lay in the store's folder itself."""
    there = stores.folder.glob("rows/fetch_page/snapshot/*/*.parquet")
    (file,) = [path for path in there if LOOSE not in path.name]
    rows = pq.read_table(file)
    place = rows.schema.get_field_index("body")
    body = rows.column("body").combine_chunks()
    parts = {name: body.field(name) for name in ("pack", "offset", "length")}
    rows = rows.set_column(place, "body", pa.StructArray.from_arrays(list(parts.values()), list(parts)))
    (file.parent.parent / file.name).write_bytes(parquet_bytes(rows))
    file.unlink()
    (url,) = rows.column("url").to_pylist()
    went = forget(stores.storage, [entry_of(url, "asked")])
    assert went == Forgotten(new=1, rows=2, overwritten=len(PAGES[url])) and not stores.holds(PAGES[url])


class Killed(BaseException):
    """What ends a process."""


def dying(patch: pytest.MonkeyPatch, after: int) -> None:
    """Have the storage die at the change that comes after so many."""
    left = after

    def counted(change: Callable[..., None]) -> Callable[..., None]:
        def change_or_die(*arguments: Any) -> None:
            nonlocal left
            if not left:
                raise Killed
            left -= 1
            change(*arguments)

        return change_or_die

    for name in ("write", "delete"):
        patch.setattr(Storage, name, counted(getattr(Storage, name)))


@pytest.mark.slow
@pytest.mark.parametrize("what", ["http://a.test/1", "a.test", sha256(stored(b"the first picture"))])
def test_a_kill_at_any_change_is_gone_on_with(tmp_path: Path, what: str) -> None:
    whole = Stores(tmp_path / "whole")
    forget(whole.storage, [entry_of(what, "asked")])
    expected = whole.bodies("fetch_page"), whole.bodies("fetch_image"), whole.texts(), whole.decoded()
    killed, changes = True, 0
    while killed:
        stores = Stores(tmp_path / str(changes))
        with pytest.MonkeyPatch.context() as patch:
            dying(patch, changes)
            try:
                forget(stores.storage, [entry_of(what, "asked")])
                killed = False
            except Killed:
                pass
        if killed:
            # Asked for again, or gone on with by whoever asks for something else, once it is remembered.
            forget(stores.storage, [entry_of(what if changes % 2 == 0 else "http://z.test/", "asked")])
        found = stores.bodies("fetch_page"), stores.bodies("fetch_image"), stores.texts(), stores.decoded()
        assert found == expected, f"killed at change {changes}"
        lists = {name.removesuffix(".json") for name in stores.storage.names(FOLDER) if name.endswith(".json")}
        assert lists == set(stores.storage.names(SWEPT))
        changes += 1
    assert changes > 5


@pytest.mark.parametrize(
    ("what", "words"),
    [
        ("", "neither a URL nor a host"),
        ("two words", "neither a URL nor a host"),
        ("ftp://h/", "not an absolute http or https URL"),
        ("http://", "--forget http://: "),
        ("0" * 63, "a sha256 has 64 hexadecimal digits, this has 63"),
        ("A" * 40, "a sha256 has 64 hexadecimal digits, this has 40"),
        ("com", "all sites that there are under com; name one of them"),
        ("co.uk.", "all sites that there are under co.uk; name one of them"),
    ],
)
def test_what_is_nothing_of_the_kind_is_a_mistake(what: str, words: str) -> None:
    with pytest.raises(UserMistake) as mistake:
        entry_of(what, "x")
    assert words in str(mistake.value)
