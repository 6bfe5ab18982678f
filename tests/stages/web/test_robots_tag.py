"""X-Robots-Tag lines and robots meta tags: whom they address and what they say."""

import time
from datetime import UTC, datetime

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stages.web.robots_tag import directives, refusal, words
from stages.web.settings import CrawlSettings

KNOWN = {"noindex", "nofollow", "noai", "noimageai", "noarchive", "unavailable_after"}


@pytest.mark.parametrize(
    ("lines", "found"),
    [
        (["noindex"], {"noindex"}),
        (["NoIndex ,  NOFOLLOW"], {"noindex", "nofollow"}),
        (["noai noimageai"], {"noai", "noimageai"}),
        (["noai\tnoimageai;noindex,,"], {"noai", "noimageai", "noindex"}),
        (["otherbot: noindex, nofollow"], set()),
        (["otherbot: noindex nofollow"], set()),
        (["otherbot: noindex", "noai"], {"noai"}),
        (["Interloom: noai, noimageai"], {"noai", "noimageai"}),
        (["Interloom : noai noimageai"], {"noai", "noimageai"}),
        (["interloom/1.0: noai"], {"noai"}),
        (["interloom/1.0 : noai noarchive"], {"noai", "noarchive"}),
        (["interloom-images/1.0: noai"], set()),
        (["inter: noai"], set()),
        (["*: noindex"], {"noindex"}),
        (["otherbot: noindex, interloom: nofollow, noarchive"], {"nofollow", "noarchive"}),
        (["otherbot: noindex interloom: nofollow noarchive"], {"nofollow", "noarchive"}),
        (["noai, otherbot: noindex"], {"noai"}),
        (["max-snippet: 20, max-image-preview:large, noai"], {"noai"}),
        (["max-snippet:-1 noai"], {"noai"}),
        ([": noai"], {"noai"}),
        ([""], set()),
        ([], set()),
    ],
)
def test_lines(lines: list[str], found: set[str]) -> None:
    assert directives(lines, "interloom") & KNOWN == found


@pytest.mark.parametrize(
    ("date", "day"),
    [
        ("Wed, 25 Jun 2031 15:00:00 GMT", 25),
        ("25 Jun 2031 15:00:00 PST", 25),
        ("25 Jun 2031 15:00:00 +0200", 25),
        ("Wednesday, 25-Jun-31 15:00:00 GMT", 25),
        ("25-Jun-2031 15:00:00", 25),
        ("Wed Jun 25 15:00:00 2031", 25),
        ("2031-06-25", 25),
        ("2031-06-25T15:00:00Z", 25),
        ("2031-06-25T15:00:00+02:00", 25),
        ("2031-06-25 15:00", 25),
        ("25 Jun 2031", 25),
    ],
)
@pytest.mark.parametrize(
    "line", ["unavailable_after: {}", "unavailable_after:{}, noarchive", "noai Unavailable_After: {}"]
)
def test_unavailable_after_says_something_once_its_date_has_passed(date: str, day: int, line: str) -> None:
    said = {word for word in ("noarchive", "noai") if word in line}
    before, after = datetime(2031, 6, day - 1, tzinfo=UTC), datetime(2031, 6, day + 2, tzinfo=UTC)
    assert directives([line.format(date)], "interloom", before) == said
    assert directives([line.format(date)], "interloom", after) == said | {"unavailable_after"}
    other = [f"otherbot: {line.format(date)}"]
    assert "unavailable_after" not in directives(other, "interloom", after)


@pytest.mark.parametrize("text", ["soon", "", "99 Foo 2001", "31 Feb 2001 10:00:00 GMT", "0000-00-00", "9" * 500])
def test_what_is_no_date_says_nothing(text: str) -> None:
    assert directives([f"unavailable_after: {text}, noai"], "interloom") & KNOWN == {"noai"}


def test_refusal_names_one_directive_whatever_their_order() -> None:
    refused = CrawlSettings().image_directives
    assert (
        refusal(["noindex, noai"], "interloom", refused) == refusal(["noai", "noindex"], "interloom", refused) == "noai"
    )
    assert refusal(["nofollow"], "interloom", refused) is None
    assert refusal(["noimageindex"], "interloom", CrawlSettings().page_directives) is None
    for directive in ("noml", "none", "unavailable_after: 2001-01-01"):
        for ours in (refused, CrawlSettings().page_directives):
            assert refusal([directive], "interloom", ours) == directive.partition(":")[0]


def test_words_are_whosever() -> None:
    assert words("otherbot: NoIndex, max-snippet:3 noai") == ["noindex", "max-snippet", "noai"]


def test_a_long_line_is_read_at_once() -> None:
    start = time.process_time()
    for line in (
        "unavailable_after:" * 2000,
        "unavailable_after: 25 " + "\t" * 16_000,
        "a:" * 8000,
        " " * 16_000,
        "a" * 16_000,
        "a" + " " * 16_000 + "b",
        "unavailable_after:" + "wed " * 4000,
    ):
        directives([line] * 50, "interloom")
    assert time.process_time() - start < 2


@settings(derandomize=True, deadline=None, max_examples=100)
@given(st.lists(st.text(max_size=40), max_size=4))
def test_any_header_can_be_read(lines: list[str]) -> None:
    assert all(name == name.lower() for name in directives(lines, "interloom"))
