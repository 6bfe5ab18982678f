"""Meta tags of pages: which refuse the page, and which keep its pictures back."""

import pytest

from stages.web.consent.page import PageConsent, Refusal, page_refusal, pictures_refusal
from stages.web.settings import CrawlSettings

OURS = PageConsent.of(CrawlSettings(user_agent="Interloom/2 (+http://x)"))


@pytest.mark.parametrize(
    ("meta_robots", "directive"),
    [
        (None, None),
        ("index, follow", None),
        ("NoIndex, follow", "noindex"),
        ("noarchive, noimageai", None),
        ("googlebot: noindex", None),
        ("googlebot: noindex; noarchive", None),
        ("index; interloom: noai", "noai"),
        ("interloom/1: nocache noml", "noml"),
        ("none", "none"),
        ("unavailable_after:Mon, 01 Jan 2001 00:00:00 GMT", "unavailable_after"),
        ("unavailable_after:2999-01-01", None),
    ],
)
def test_page_refusal(meta_robots: str | None, directive: str | None) -> None:
    expected = None if directive is None else Refusal("meta_robots", directive)
    assert page_refusal(meta_robots, None, OURS) == expected


def test_the_list_of_the_settings_decides() -> None:
    other = PageConsent.of(CrawlSettings(page_directives=("noarchive",)))
    assert page_refusal("noai", None, other) is None
    assert page_refusal("noai, noarchive", None, other) == Refusal("meta_robots", "noarchive")


@pytest.mark.parametrize(
    ("meta_tdm", "reserved"), [("1", True), ("1 https://h/p.json", True), ("0", False), ("x", False)]
)
def test_a_reservation_in_a_tag(meta_tdm: str, reserved: bool) -> None:
    assert (page_refusal(None, meta_tdm, OURS) is not None) == reserved
    assert page_refusal(None, meta_tdm, OURS.model_copy(update={"obey_tdmrep": False})) is None


@pytest.mark.parametrize(
    ("meta_robots", "x_robots_tag", "expected"),
    [
        (None, None, None),
        ("noai, noindex", "noai", None),
        ("noarchive noimageai", None, Refusal("meta_robots", "noimageai")),
        ("googlebot: noimageindex", None, None),
        (None, "otherbot: noai\nnoimageindex", Refusal("x_robots_tag", "noimageindex")),
    ],
)
def test_pictures_refusal(meta_robots: str | None, x_robots_tag: str | None, expected: Refusal | None) -> None:
    assert pictures_refusal(meta_robots, x_robots_tag, OURS) == expected
