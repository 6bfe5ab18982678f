"""Headers about use: what is kept of them, and which refuses."""

from collections.abc import Mapping

import pytest

from stages.web.consent.headers import HeaderConsent, header_consent
from stages.web.consent.signals import Signal
from stages.web.fetched import Consent
from stages.web.settings import CrawlSettings

SETTINGS = CrawlSettings()
URL = "http://h/a/b.html"


def read(headers: Mapping[str, list[str]], settings: CrawlSettings = SETTINGS) -> HeaderConsent:
    return header_consent(lambda name: headers.get(name, []), URL, "page", settings)


@pytest.mark.parametrize(
    ("headers", "refused_by"),
    [
        ({}, None),
        ({"X-Robots-Tag": ["noai"]}, Signal("x_robots_tag", "X-Robots-Tag: noai")),
        ({"tdm-reservation": ["1"]}, Signal("tdmrep", "tdm-reservation: 1")),
        ({"tdm-reservation": ["0"]}, None),
        ({"tdm-reservation": ["0", "1"]}, Signal("tdmrep", "tdm-reservation: 1")),
        ({"tdm-reservation": [" 1 "], "tdm-policy": ["/p"]}, Signal("tdmrep", "tdm-reservation: 1")),
        ({"Content-Usage": ["train-ai=n"]}, Signal("content_signal", "Content-Usage: train-ai=no")),
        ({"Content-Signal": ["search=yes, ai-train=no"]}, Signal("content_signal", "Content-Signal: ai-train=no")),
        ({"Content-Usage": ["search=n"]}, None),
        ({"X-Robots-Tag": ["noai"], "tdm-reservation": ["1"]}, Signal("x_robots_tag", "X-Robots-Tag: noai")),
    ],
)
def test_what_refuses(headers: dict[str, list[str]], refused_by: Signal | None) -> None:
    said = read(headers)
    assert said.refused_by == refused_by
    record = said.added_to(Consent(True, "http://h/robots.txt 200", agent="a"))
    assert record.decided_by == (refused_by and refused_by.signal)
    assert record.decided_rule == (refused_by and refused_by.said)


def test_each_signal_can_be_left_unheeded_and_is_kept_all_the_same() -> None:
    headers = {"X-Robots-Tag": ["noai", "otherbot: none"], "tdm-reservation": ["1"], "Content-Usage": ["train-ai=n"]}
    deaf = CrawlSettings(page_directives=(), obey_tdmrep=False, content_signals=())
    said = read(headers, deaf)
    assert said.refused_by is None
    assert said.x_robots_tag == "noai\notherbot: none"
    assert said.signals == (
        Signal("tdmrep", "tdm-reservation: 1"),
        Signal("content_signal", "Content-Usage: train-ai=n"),
    )


@pytest.mark.parametrize(
    ("lines", "license"),
    [
        (
            ['<https://creativecommons.org/licenses/by/4.0/>; rel="license"'],
            "https://creativecommons.org/licenses/by/4.0/",
        ),
        (["</terms>; rel=license"], "http://h/terms"),
        (['<x>; rel=next, <terms> ; title="a, b; <c>" ; REL="copyright License"'], "http://h/a/terms"),
        (['<x>; rel="preload"', '<y>; rel="license"'], "http://h/a/y"),
        (['<mailto:x>; rel="license", <y>; rel="license"'], "http://h/a/y"),
        (['<x>; rel="licensed"'], None),
        (["<x>", "", "<", '<x>; rel="license'], None),
        (["<" * 8000, '<x>; a="' * 2000, "<x>" + "; " * 8000, "<x>" + ' ;a="\\"' * 2000], None),
    ],
)
def test_licence_links(lines: list[str], license: str | None) -> None:
    assert read({"Link": lines}).license == license
