"""The files of an origin as one verdict, and as the client asks for and keeps to them."""

from __future__ import annotations

from typing import Any, Literal

import pytest

from stages.web.client import fetch
from stages.web.consent.origin import Asked, OriginRules, origin_files, origin_rules, rules_variant
from stages.web.consent.signals import Signal
from stages.web.fetched import Failure
from stages.web.politeness import HostMemory
from stages.web.robots import rules_from_answer, rules_from_failure
from stages.web.settings import CrawlSettings
from tests.servers import ORIGIN_FILES, Route, answer, hang_up, redirect, routes

SETTINGS = CrawlSettings(allow_private_networks=True, per_host_delay=0, retries=0, total_timeout=2)
AI, TDM = "http://h/ai.txt", "http://h/.well-known/tdmrep.json"
RESERVED = b'[{"location": "/a", "tdm-reservation": 1}, {"location": "/", "tdm-reservation": 0}]'


def rules(robots: str = "", ai: str | None = None, tdm: bytes | None = None, **changes: Any) -> OriginRules:
    settings = CrawlSettings(**changes)
    found = rules_from_answer("http://h", 200, robots.encode())
    bodies = {AI: None if ai is None else ai.encode(), TDM: tdm}
    answers: dict[str, Asked | None] = {
        url: Asked(404, b"") if bodies[url] is None else Asked(200, bodies[url] or b"")
        for url in origin_files(found, "http://h", settings)
    }
    return origin_rules(found, "http://h", answers, settings)


@pytest.mark.parametrize(
    ("given", "source", "by"),
    [
        ({"robots": "User-agent: *\nDisallow: /a"}, "robots.txt", Signal("robots", "Disallow: /a")),
        ({"ai": "User-agent: *\nDisallow: *.jpg"}, "ai.txt", Signal("ai_txt", "Disallow: *.jpg")),
        ({"tdm": RESERVED}, ".well-known/tdmrep.json", Signal("tdmrep", "/a tdm-reservation: 1")),
        (
            {"robots": "User-agent: *\nContent-Signal: ai-train=no\nAllow: /"},
            "robots.txt",
            Signal("content_signal", "Content-Signal: ai-train=no"),
        ),
        ({"robots": "License: https://h/rsl.xml"}, "robots.txt", Signal("rsl", "License: https://h/rsl.xml")),
    ],
)
def test_each_file_can_refuse_and_is_named(given: dict[str, Any], source: str, by: Signal) -> None:
    verdict = rules(**given).allow("http://h/a.jpg", "image", "interloom")
    assert (verdict.allowed, verdict.source, verdict.by) == (False, f"http://h/{source} 200", by)
    assert verdict.robots_allowed == (by.signal != "robots")
    failure = verdict.failure("http://h/a.jpg")
    assert (failure.reason, failure.status, failure.retryable) == (by.signal, "refused", False)
    deaf = {"obey_ai_txt": False, "obey_tdmrep": False, "content_signals": (), "obey_rsl": False}
    unheeded = rules(**given, **deaf).allow("http://h/a.jpg", "image", "interloom")
    assert unheeded.allowed == (by.signal != "robots")
    assert by.signal not in ("content_signal", "rsl") or by in unheeded.signals


def test_what_allows_is_named_too_and_silence_is_told_from_it() -> None:
    opened = rules("User-agent: *\nDisallow: /\nAllow: /a\nAllow: /.well-known/", tdm=RESERVED)
    assert opened.allow("http://h/ab", "page", "interloom").by == Signal("tdmrep", "/a tdm-reservation: 1")
    verdict = rules("User-agent: *\nAllow: /a\nContent-Signal: search=no").allow("http://h/ab", "page", "interloom")
    assert verdict.allowed and verdict.by == Signal("robots", "Allow: /a")
    assert verdict.signals == (Signal("content_signal", "Content-Signal: search=no"),)
    assert rules().allow("http://h/ab", "page", "interloom").by is None


def test_only_what_robots_txt_leaves_open_is_asked_for() -> None:
    def asked(robots: str, **changes: Any) -> list[str]:
        return origin_files(rules_from_answer("http://h", 200, robots.encode()), "http://h", CrawlSettings(**changes))

    assert asked("") == [AI, TDM]
    assert asked("User-agent: *\nDisallow: /.well-known/") == [AI]
    assert asked("User-agent: *\nDisallow: /") == []
    assert asked("", obey_ai_txt=False) == [TDM]
    assert asked("", obey_tdmrep=False) == [AI]
    down = rules_from_failure("http://h", Failure("timeout", "", retryable=True))
    assert origin_files(down, "http://h", CrawlSettings()) == []


def test_a_file_that_could_not_be_had_is_asked_for_again_soon() -> None:
    robots = rules_from_answer("http://h", 404, b"")
    for answered, lifetime in ((Asked(404, b""), 86_400), (Asked(503, b""), 600), (None, 600), (Asked(429, b""), 600)):
        found = origin_rules(robots, "http://h", {AI: answered}, CrawlSettings())
        assert found.lifetime == lifetime and found.allow("http://h/", "page", "x").allowed


def test_settings_that_shape_the_rules_are_a_variant() -> None:
    changes: list[dict[str, Any]] = [
        {},
        {"obey_ai_txt": False},
        {"obey_tdmrep": False},
        {"obey_rsl": False},
        {"content_signals": ("search",)},
        {"user_agent": "other/1"},
        {"allow_private_networks": True},
    ]
    assert len({rules_variant(CrawlSettings(**each)) for each in changes}) == len(changes)
    assert rules_variant(CrawlSettings()) == rules_variant(CrawlSettings(concurrency=3))


def fetched(
    kind: Literal["page", "image"] = "page", settings: CrawlSettings = SETTINGS, **table: Route
) -> tuple[dict[str, Any], list[str]]:
    """(row of /x, paths asked for) of a site; names of files with underscores for what is not a letter."""
    files = {"robots_txt": ORIGIN_FILES[0], "ai_txt": ORIGIN_FILES[1], "tdmrep_json": ORIGIN_FILES[2], "x": "/x"}
    with routes({files.get(name, f"/{name}"): route for name, route in {"x": answer(), **table}.items()}) as site:
        (rows,) = fetch([f"{site.url}/x"], settings, kind=kind, max_bytes=1000, memory=HostMemory())
        row: dict[str, Any] = rows.to_pylist()[0]
        row["detail"] = row["detail"] and row["detail"].replace(site.url, "")
        return row, site.paths()


def test_the_files_are_asked_for_once_and_before_the_page() -> None:
    memory = HostMemory()
    with routes({"/a": answer(), "/b": answer()}) as site:
        for _ in range(2):
            list(fetch([f"{site.url}/a", f"{site.url}/b"], SETTINGS, kind="page", max_bytes=1000, memory=memory))
        paths = site.paths()
    assert paths[:3] == list(ORIGIN_FILES) and all(paths.count(path) == 1 for path in ORIGIN_FILES)
    for changes in ({"obey_robots": False}, {"obey_ai_txt": False, "obey_tdmrep": False}):
        _, paths = fetched(settings=SETTINGS.model_copy(update=changes))
        assert not set(paths) & set(ORIGIN_FILES[1:])


def test_what_ai_txt_closes_is_not_asked_for() -> None:
    closed = answer(200, b"User-Agent: *\nDisallow: *.html", "text/plain")
    row, paths = fetched(ai_txt=closed)
    assert (row["status"], row["reason"], row["retryable"]) == ("refused", "ai_txt", False)
    assert row["detail"] == "/ai.txt 200 disallows /x (Disallow: *.html)"
    consent = row["consent"]
    assert (consent["robots_allowed"], consent["decided_by"], consent["decided_rule"]) == (
        True,
        "ai_txt",
        "Disallow: *.html",
    )
    assert consent["decided_source"].endswith("/ai.txt 200")
    assert consent["signals"] == [{"signal": "ai_txt", "said": "Disallow: *.html"}]
    assert "/x" not in paths
    assert fetched("image", ai_txt=closed)[0]["status"] == "ok"


def test_a_file_may_be_elsewhere_and_may_be_missing() -> None:
    body = answer(200, b"User-Agent: *\nDisallow: /", "text/plain")
    assert fetched(ai_txt=redirect("/there"), there=body)[0]["reason"] == "ai_txt"
    for broken in (answer(500), hang_up, answer(200, b"<html>nothing here</html>"), redirect("mailto:x")):
        assert fetched(ai_txt=broken, tdmrep_json=broken)[0]["status"] == "ok"


@pytest.mark.parametrize(
    ("headers", "reason"),
    [
        ({"tdm_reservation": "1"}, "tdmrep"),
        ({"TDM_Reservation": "0"}, None),
        ({"Content_Usage": "train-ai=n"}, "content_signal"),
        ({"X_Robots_Tag": "noml"}, "x_robots_tag"),
        ({"X_Robots_Tag": "interloom/1 : noarchive noai"}, "x_robots_tag"),
        ({"X_Robots_Tag": "unavailable_after: 25 Jun 2010 15:00:00 PST"}, "x_robots_tag"),
        ({"X_Robots_Tag": "unavailable_after: 25 Jun 2999 15:00:00 PST"}, None),
    ],
)
def test_headers_refuse_before_the_body_is_read(headers: dict[str, str], reason: str | None) -> None:
    for kind in ("page", "image"):
        row, _ = fetched(kind, x=answer(**headers))  # type: ignore[arg-type]  # one of the two
        assert row["reason"] == reason and (row["body"] is None) == (reason is not None)
        assert row["consent"]["decided_by"] == reason


def test_a_reservation_in_the_file_and_a_licence_in_the_header() -> None:
    row, paths = fetched(tdmrep_json=answer(200, b'[{"location": "/x", "tdm-reservation": 1}]', "application/json"))
    assert row["reason"] == "tdmrep" and "/x" not in paths
    row, _ = fetched(x=answer(Link='</terms>; rel="license"'))
    assert row["status"] == "ok" and row["consent"]["license"].endswith("/terms")
