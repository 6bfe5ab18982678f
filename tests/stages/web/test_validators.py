"""Conditional requests: what is sent, what a 304 gives, and when it gives nothing."""

from __future__ import annotations

from typing import Any

import pytest
from multidict import CIMultiDict, CIMultiDictProxy

from stages.web.client import Client
from stages.web.politeness import HostMemory
from stages.web.settings import CrawlSettings
from stages.web.validators import Headers, Kept, Validators
from tests.servers import Handler, Route, Site, answer, in_turn, redirect, routes

QUICK = CrawlSettings(allow_private_networks=True, per_host_delay=0, retry_backoff=0, obey_robots=False)
DATE, LATER = "Wed, 21 Oct 2015 07:28:00 GMT", "Thu, 22 Oct 2015 07:28:00 GMT"
OLD, NEW = b"<p>as it was", b"<p>as it is"


def headers(*lines: tuple[str, str]) -> Headers:
    return CIMultiDictProxy(CIMultiDict(lines))


NOW = answer(body=NEW)


def conditional(new: Route = NOW, **said: str) -> Route:
    """304 with these headers to whoever asks a condition, in full to whoever does not."""

    def respond(handler: Handler) -> None:
        asked = handler.entry.headers
        (answer(304, b"", None, **said) if asked.keys() & {"if-none-match", "if-modified-since"} else new)(handler)

    return respond


def kept(url: str, etag: str | None = '"1"', last_modified: str | None = DATE, *use: str, **changes: Any) -> Kept:
    facts = {"http_status": 200, "content_type": "text/html; charset=utf-8", "body": lambda: OLD} | changes
    return Kept(url, validators=Validators(etag, last_modified, use), **facts)


def fetched(site: Site, earlier: Kept | None, path: str = "/page", **changes: Any) -> dict[str, Any]:
    client = Client(QUICK.model_copy(update=changes), memory=HostMemory())
    try:
        (table,) = client.fetch([site.url + path], kind="page", max_bytes=10_000, earlier=lambda _: earlier)
    finally:
        client.close()
    (row,) = table.to_pylist()
    return row


def conditions(site: Site) -> list[tuple[str | None, str | None]]:
    asked = [entry for entry in site.log if entry.path == "/page"]
    return [(entry.headers.get("if-none-match"), entry.headers.get("if-modified-since")) for entry in asked]


def test_an_answer_that_holds_is_a_row_as_before() -> None:
    given = {"ETag": 'W/"1"', "Last_Modified": DATE, "X_Robots_Tag": "all", "Link": "</by>; rel=license"}
    whole = answer(body=OLD, content_type="text/html; charset=utf-8", **given)
    with routes({"/page": in_turn(whole, conditional())}) as site:
        first = fetched(site, None)
        validators = Validators(first["etag"], first["last_modified"], tuple(first["use_headers"]))
        assert validators == Validators('W/"1"', DATE, ("X-Robots-Tag: all", "Link: </by>; rel=license"))
        again = fetched(site, kept(site.url + "/page", 'W/"1"', DATE, *validators.use))
        assert again == first
        assert conditions(site) == [(None, None), ('W/"1"', DATE)]


@pytest.mark.parametrize(
    ("mine", "theirs", "holds"),
    [
        ('"1"', {}, True),
        ('"1"', {"ETag": '"1"'}, True),
        ('"1"', {"ETag": '"2"'}, False),
        ('W/"1"', {"ETag": 'W/"1"'}, True),
        ('"1"', {"ETag": 'W/"1"'}, True),  # compared weakly (RFC 9110, 8.8.3.2)
        ('W/"1"', {"ETag": '"1"'}, True),  # as nginx does, which weakens the tags of what it packs
        ('W/"1"', {"ETag": 'W/"2"'}, False),
        (None, {"ETag": '"1"'}, False),
        ('"1"', {"Last-Modified": LATER}, False),
        ('"1"', {"Last-Modified": "Wednesday, 21-Oct-15 07:28:00 GMT"}, True),  # the same, as RFC 850 wrote it
        ('"1"', {"ETag": '"1"', "Last-Modified": LATER}, True),
    ],
)
def test_a_304_that_speaks_of_another_answer_gives_nothing(mine: str, theirs: dict[str, str], holds: bool) -> None:
    said = {name.replace("-", "_"): value for name, value in theirs.items()}
    with routes({"/page": conditional(**said)}) as site:
        row = fetched(site, kept(site.url + "/page", mine))
        assert (row["status"], row["body"]) == ("ok", OLD if holds else NEW)
        assert len(site.log) == (1 if holds else 2) and conditions(site)[-1] == (
            (mine, DATE) if holds else (None, None)
        )


def test_a_body_that_is_gone_is_asked_for_in_full() -> None:
    use = "tdm-policy: https://h/policy"
    with routes({"/page": conditional(answer(body=NEW, tdm_policy="https://h/policy"))}) as site:
        row = fetched(site, kept(site.url + "/page", '"1"', DATE, use, body=lambda: None))
        assert row["body"] == NEW and conditions(site) == [('"1"', DATE), (None, None)]
        assert len(row["consent"]["signals"]) == 1, "what the 304 said is not said twice"


def test_what_a_304_says_of_the_use_is_what_counts() -> None:
    with routes({"/page": conditional(X_Robots_Tag="noai")}) as site:
        row = fetched(site, kept(site.url + "/page", '"1"', None, "X-Robots-Tag: all"))
        assert (row["status"], row["reason"], row["body"]) == ("refused", "x_robots_tag", None)
        assert row["consent"]["x_robots_tag"] == "noai" and len(site.log) == 1


def test_what_a_304_does_not_say_stands() -> None:
    with routes({"/page": conditional()}) as site:
        row = fetched(site, kept(site.url + "/page", '"1"', None, "X-Robots-Tag: nosnippet"))
        assert (row["status"], row["consent"]["x_robots_tag"]) == ("ok", "nosnippet")
        refused = fetched(site, kept(site.url + "/page", '"1"', None, "tdm-reservation: 1"))
        assert (refused["status"], refused["reason"]) == ("refused", "tdmrep"), "under what is obeyed now"


def test_a_304_to_a_plain_question_is_a_failure() -> None:
    with routes({"/page": answer(304, b"", None)}) as site:
        for earlier in (None, kept(site.url + "/page", body=lambda: None)):
            row = fetched(site, earlier)
            assert (row["status"], row["reason"], row["http_status"]) == ("error", "http_status", 304)


def test_conditions_go_to_the_url_that_answered_alone() -> None:
    with routes({"/old": redirect("/page"), "/page": conditional()}) as site:
        row = fetched(site, kept(site.url + "/page"), "/old")
        assert (row["final_url"], row["body"]) == (site.url + "/page", OLD)
        assert [("if-none-match" in entry.headers) for entry in site.log] == [False, True]
    with routes({"/page": redirect("/there"), "/there": answer(body=NEW)}) as site:
        row = fetched(site, kept(site.url + "/elsewhere"))
        assert row["body"] == NEW and not any("if-none-match" in entry.headers for entry in site.log)


def test_a_changed_page_is_taken_as_it_is_now() -> None:
    with routes({"/page": answer(body=NEW, ETag='"2"')}) as site:
        row = fetched(site, kept(site.url + "/page"))
        assert (row["body"], row["etag"], row["last_modified"]) == (NEW, '"2"', None)


@pytest.mark.parametrize(
    ("lines", "found"),
    [
        ([("ETag", '"a b"'), ("Last-Modified", DATE)], Validators(None, DATE)),
        ([("ETag", "*")], Validators()),
        ([("ETag", "abc")], Validators()),
        ([("ETag", 'w/"1"')], Validators()),
        ([("ETag", '""')], Validators('""')),
        ([("Last-Modified", "yesterday")], Validators()),
        ([("X-Robots-Tag", "noai")], Validators()),
        ([("ETag", '"1"'), ("Link", "</s.css>; rel=preload")], Validators('"1"')),
        ([("ETag", '"1"'), *[("X-Robots-Tag", "all")] * 51], Validators()),
        ([("ETag", '"1"'), ("X-Robots-Tag", "a" * 5000)], Validators()),
        ([("ETag", '"1"'), ("X-Robots-Tag", "\udcff")], Validators()),
    ],
)
def test_what_is_fit_to_be_asked_by(lines: list[tuple[str, str]], found: Validators) -> None:
    assert Validators.of(headers(*lines)) == found and bool(found) == bool(found.etag or found.last_modified)
