"""What is remembered of a fetch, and for whom it holds."""

from __future__ import annotations

import json
import time
from collections import Counter
from contextlib import closing
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from pipeline.engine.key_range import WHOLE
from pipeline.engine.packs import read_packed
from pipeline.engine.phase import Part
from pipeline.engine.row_store import RowStore
from pipeline.engine.storage import Storage
from pipeline.phases import origins
from pipeline.phases.fetching import FetchErrand, Fetching, allows, policy_of
from schemas.consent import VERDICT
from schemas.page import LOCATOR
from stages.web import client
from stages.web.fetched import FETCHED
from stages.web.politeness import PROCESS_MEMORY
from stages.web.settings import CrawlSettings
from tests.servers import Route, Site, answer, in_turn, routes

PAGE = b"<p>" + b"x" * 997
LOOSE = CrawlSettings(allow_private_networks=True, obey_robots=False, per_host_delay=0, retries=0)
MAX_BYTES = 10_000


class Fetcher:
    """Fetches the paths of one site into one folder, as one build after the other would."""

    def __init__(self, folder: Path, site: Site) -> None:
        self.storage = Storage(str(folder))
        self.site = site

    def __call__(
        self, settings: CrawlSettings, *paths: str, max_bytes: int = MAX_BYTES, generation: int = 0
    ) -> list[tuple[str, str | None]]:
        """(status, reason) of each path."""
        fetching = Fetching(settings, "page", max_bytes, "now")
        urls = [f"{self.site.url}{path}" for path in paths]
        part = Part("pages", "", WHOLE, self.storage, {}, generation=generation)
        with closing(FetchErrand(fetching, lambda part: urls).open(4)) as fetch:
            fetch(part)
        rows: list[dict[str, Any]] = fetching.answers(self.storage, urls, WHOLE, generation).to_pylist()
        assert [row["url"] for row in rows] == [f"{self.site.url}{path}" for path in paths]
        return [(row["status"], row["reason"]) for row in rows]


def settings(**changes: Any) -> CrawlSettings:
    return CrawlSettings.model_validate(LOOSE.model_dump() | changes)


@pytest.mark.parametrize(
    ("changes", "max_bytes", "outcome"),
    [
        ({"obey_robots": True}, MAX_BYTES, ("refused", "robots")),
        ({"allow_private_networks": False}, MAX_BYTES, ("refused", "private_address")),
        ({"page_directives": ("noindex", "noarchive")}, MAX_BYTES, ("refused", "x_robots_tag")),
        ({}, 100, ("refused", "too_large")),
    ],
)
def test_what_a_stricter_policy_forbids_does_not_stay(
    tmp_path: Path, changes: dict[str, Any], max_bytes: int, outcome: tuple[str, str]
) -> None:
    robots = answer(body=b"User-agent: *\nDisallow: /page", content_type="text/plain")
    with routes({"/page": answer(body=PAGE, X_Robots_Tag="noarchive"), "/robots.txt": robots}) as site:
        fetch = Fetcher(tmp_path, site)
        assert fetch(LOOSE, "/page") == [("ok", None)]
        assert fetch(settings(**changes), "/page", max_bytes=max_bytes) == [outcome]
        # Back under the old policy its own row holds, and both are remembered.
        asked = site.paths().count("/page")
        assert fetch(LOOSE, "/page") == [("ok", None)]
        assert fetch(settings(**changes), "/page", max_bytes=max_bytes) == [outcome]
        assert site.paths().count("/page") == asked


def test_what_a_strict_policy_allowed_holds_under_a_looser_one(tmp_path: Path) -> None:
    strict = settings(obey_robots=True)
    with routes({"/page": answer(body=PAGE), "/secret": answer(body=PAGE), "/robots.txt": answer(404)}) as site:
        fetch = Fetcher(tmp_path, site)
        assert fetch(strict, "/page", max_bytes=1_000) == [("ok", None)]
        assert fetch(settings(page_directives=()), "/page", "/secret") == [("ok", None), ("ok", None)]
        assert site.paths().count("/page") == 1


def test_a_failure_holds_until_the_next_generation_or_another_policy(tmp_path: Path) -> None:
    with routes({"/page": in_turn(answer(503), answer(503), answer(body=PAGE))}) as site:
        fetch = Fetcher(tmp_path, site)
        assert fetch(LOOSE, "/page") == fetch(LOOSE, "/page") == [("error", "http_status")]
        assert len(site.log) == 1
        assert fetch(settings(max_redirects=3), "/page") == [("error", "http_status")]
        assert fetch(LOOSE, "/page", generation=1) == [("ok", None)]
        assert fetch(LOOSE, "/page", generation=2) == [("ok", None)]
        assert len(site.log) == 3


def test_what_was_excluded_is_asked_for_once_it_no_longer_is(tmp_path: Path) -> None:
    table = {"/page": answer(body=PAGE), "/there": answer(302, Location="/page"), "/gone": answer(404)}
    with routes(table) as site:
        fetch = Fetcher(tmp_path, site)
        without = settings(excluded=(f"{site.url}/page",))
        assert fetch(without, "/page", "/there", "/gone") == [("refused", "excluded")] * 2 + [("error", "http_status")]
        asked = len(site.log)
        assert fetch(without, "/page", "/there", "/gone") == [("refused", "excluded")] * 2 + [("error", "http_status")]
        assert len(site.log) == asked
        assert fetch(LOOSE, "/page", "/there", "/gone") == [("ok", None)] * 2 + [("error", "http_status")]
        assert site.paths().count("/gone") == 1


def snapshot_of(folder: Path, site: Site, name: str, chosen: CrawlSettings = LOOSE) -> list[dict[str, Any]]:
    """The pages /a and /b as a snapshot has them, but for where their bodies lie."""
    storage, urls = Storage(str(folder)), [f"{site.url}/{path}" for path in "ab"]
    fetching = Fetching(chosen, "page", MAX_BYTES, name)
    with closing(FetchErrand(fetching, lambda part: urls).open(4)) as fetch:
        fetch(Part("pages", "", WHOLE, storage, {}))
    found: list[dict[str, Any]] = []
    for row in fetching.answers(storage, urls, WHOLE, 0).to_pylist():
        (body,) = read_packed(storage, pa.array([row.pop("body")], LOCATOR))
        found.append({**row, "body": body, "row_key": None})
    return found


def counted(site: Site) -> Counter[str]:
    """How often a path was asked for in full ("/a") and by what was known of it ("/a?")."""
    return Counter(entry.path + "?" * ("if-none-match" in entry.headers) for entry in site.log)


def by_etag(tag: str, body: bytes) -> Route:
    whole, unchanged = answer(body=body, ETag=tag), answer(304, b"", None, ETag=tag)
    return lambda handler: (unchanged if handler.entry.headers.get("if-none-match") == tag else whole)(handler)


def test_a_new_snapshot_asks_whether_what_the_last_one_has_still_holds(tmp_path: Path) -> None:
    with routes({"/a": by_etag('"1"', PAGE), "/b": by_etag('"1"', PAGE)}) as site:
        first = snapshot_of(tmp_path, site, "monday")
        assert snapshot_of(tmp_path, site, "tuesday") == first
        assert counted(site) == {"/a": 1, "/b": 1, "/a?": 1, "/b?": 1}
        site.table["/b"] = by_etag('"2"', b"<p>new")
        changed = snapshot_of(tmp_path, site, "wednesday")
        assert changed[0] == first[0] and (changed[1]["body"], changed[1]["etag"]) == (b"<p>new", '"2"')
        snapshot_of(tmp_path, site, "thursday")
        assert counted(site) == {"/a": 1, "/b": 1, "/a?": 3, "/b?": 3}, "the newest of them is asked about"


def test_what_was_fetched_otherwise_or_is_not_to_be_asked_about_is_fetched_anew(tmp_path: Path) -> None:
    with routes({"/a": by_etag('"1"', PAGE), "/b": answer(body=PAGE)}) as site:
        snapshot_of(tmp_path, site, "monday")
        snapshot_of(tmp_path, site, "tuesday", settings(max_redirects=3))
        snapshot_of(tmp_path, site, "wednesday", settings(conditional_requests=False))
        assert counted(site) == {"/a": 3, "/b": 3}


@pytest.mark.parametrize("left", [None, b"", b"damaged"])
def test_a_body_that_is_gone_or_damaged_is_fetched_anew(tmp_path: Path, left: bytes | None) -> None:
    with routes({"/a": by_etag('"1"', PAGE), "/b": answer(body=PAGE)}) as site:
        first = snapshot_of(tmp_path, site, "monday")
        for pack in tmp_path.rglob("*.pack"):
            pack.unlink() if left is None else pack.write_bytes(left)
        assert snapshot_of(tmp_path, site, "tuesday") == first
        assert counted(site)["/a"] == 2


def test_what_an_origin_answered_serves_later_builds_for_a_day(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(client, "time", Clock())
    monkeypatch.setattr(origins, "time", Clock())
    robots = answer(body=b"User-agent: *\nDisallow: /b", content_type="text/plain")
    chosen, refused = settings(obey_robots=True), {"/a": ("ok", None), "/b": ("refused", "robots")}
    with routes({"/a": answer(body=PAGE), "/b": answer(body=PAGE), "/robots.txt": robots}) as site:

        def ask(name: str, chosen: CrawlSettings = chosen) -> int:
            """How often robots.txt was asked for, by a process of its own."""
            monkeypatch.setattr(PROCESS_MEMORY, "_rules", {})
            before = counted(site)["/robots.txt"]
            rows = snapshot_of(tmp_path, site, name, chosen)
            found = {row["url"].removeprefix(site.url): (row["status"], row["reason"]) for row in rows}
            assert found == refused
            assert rows[0]["consent"]["robots_source"] == f"{site.url}/robots.txt 200"
            return counted(site)["/robots.txt"] - before

        assert [ask("monday"), ask("tuesday")] == [1, 0]
        assert ask("wednesday", settings(obey_robots=True, robots_max_age=0)) == 1
        assert ask("thursday", settings(obey_robots=True, obey_ai_txt=False)) == 1, "other files, other rules"
        Clock.now += 86_000
        assert ask("friday") == 0
        Clock.now += 3600
        assert [ask("saturday"), ask("sunday")] == [1, 0]


def test_what_an_origin_could_not_say_is_asked_for_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    table = {"/a": answer(body=PAGE), "/b": answer(body=PAGE), "/robots.txt": in_turn(answer(503), answer(404))}
    with routes(table) as site:
        for name, outcome in (("monday", "refused"), ("tuesday", "ok"), ("wednesday", "ok")):
            monkeypatch.setattr(PROCESS_MEMORY, "_rules", {})
            rows = snapshot_of(tmp_path, site, name, settings(obey_robots=True))
            assert [row["status"] for row in rows] == [outcome] * 2
        assert counted(site)["/robots.txt"] == 2


class Clock:
    """The module `time`, on another day."""

    now = 0.0

    def __getattr__(self, name: str) -> Any:
        return getattr(time, name)

    def time(self) -> float:
        return time.time() + Clock.now


def test_another_agent_is_another_reader() -> None:
    other = settings(user_agent="other/1")
    ours, theirs = (policy_of(each, "page", MAX_BYTES) for each in (LOOSE, other))
    assert allows(ours, ours) and not allows(ours, theirs) and not allows(theirs, ours)


def test_a_row_that_does_not_say_its_policy_holds_for_nobody() -> None:
    assert not allows(policy_of(LOOSE, "page", MAX_BYTES), "0123456789abcdef0123456789abcdef")


@pytest.mark.parametrize(
    "signals", [{"obey_ai_txt": True}, {"obey_tdmrep": True}, {"obey_rsl": True}, {"content_signals": ("ai-train",)}]
)
def test_what_kept_to_fewer_signals_holds_for_nobody_who_keeps_to_more(signals: dict[str, Any]) -> None:
    deaf = {"obey_ai_txt": False, "obey_tdmrep": False, "obey_rsl": False, "content_signals": ()}
    fewer, more = (policy_of(settings(**{**deaf, **each}), "page", MAX_BYTES) for each in ({}, signals))
    assert allows(fewer, more) and not allows(more, fewer)
    earlier = json.dumps({name: value for name, value in json.loads(fewer).items() if name not in deaf})
    assert allows(fewer, earlier) and not allows(more, earlier)


def test_rows_of_earlier_releases_are_read_with_what_they_knew_of_consent(tmp_path: Path) -> None:
    storage = Storage(str(tmp_path))
    fields = [field if field.name != "consent" else pa.field("consent", VERDICT) for field in FETCHED]
    row = {"url": "http://h/a", "status": "ok", "retryable": False, "body": PAGE, "row_key": "0" * 32, "generation": 0}
    row["consent"] = {"robots_allowed": True, "agent": "interloom/0.1"}
    earlier = RowStore(storage, "fetch_page", "key", pa.schema(fields))
    earlier.keep(
        pa.Table.from_pylist([row], pa.schema([*fields, ("row_key", pa.string()), ("generation", pa.int32())]))
    )
    (read,) = RowStore(storage, "fetch_page", "key", FETCHED).read().to_pylist()
    assert {name: value for name, value in read["consent"].items() if value is not None} == row["consent"]
