"""Content-Signal and Content-Usage: who says no to which use of what."""

import pytest

from stages.web.consent.content_signals import header_preferences, refusing
from stages.web.consent.patterns import path_of
from stages.web.consent.robots_txt import RobotsTxt
from stages.web.settings import CrawlSettings

USES = CrawlSettings().content_signals


def said_no(file: str, path: str = "/x", product: str = "heron") -> str | None:
    found = refusing(RobotsTxt(file.encode()).group(product).preferences, path_of(f"http://h{path}"), USES)
    return found and found.line


@pytest.mark.parametrize(
    ("lines", "told"),
    [
        ("Content-Signal: ai-train=no, search=yes, ai-input=yes", "Content-Signal: ai-train=no"),
        ("content-signal: search=yes,AI-Train = NO", "Content-Signal: ai-train=no"),
        ("Content-Signal: ai-train=no search=yes", "Content-Signal: ai-train=no"),
        ("Content-Usage: train-ai=n", "Content-Usage: train-ai=no"),
        ("Content-Signal: ai-train=yes", None),
        ("Content-Signal: search=no, ai-input=no", None),
        ("Content-Signal: ai-train", None),
        ("Content-Signal: ai-train=maybe", None),
        ("Content-Signal:", None),
        ("Content-Signal: ai-train=yes\nContent-Signal: ai-train=no", "Content-Signal: ai-train=no"),
        ("Content-Signal: ai-train=no\nContent-Usage: train-ai=y", "Content-Signal: ai-train=no"),
        ("Content-Usage: /essays/ train-ai=n", None),
        ("Content-Usage: /x train-ai=n\nContent-Usage: train-ai=y", "Content-Usage: /x train-ai=no"),
        ("Content-Usage: train-ai=n\nContent-Usage: /x train-ai=y", None),
        ("Content-Usage: train-ai=n\nContent-Usage: /x search=y", "Content-Usage: train-ai=no"),
        ("Content-Usage: *x$ train-ai=n", "Content-Usage: *x$ train-ai=no"),
    ],
)
def test_lines_of_a_group(lines: str, told: str | None) -> None:
    assert said_no(f"User-agent: *\n{lines}\nAllow: /") == told
    assert said_no(f"User-agent: *\nAllow: /\n{lines}") == told


def test_a_group_speaks_of_its_own_crawlers() -> None:
    file = "User-agent: heron\nContent-Signal: ai-train=yes\nAllow: /\n\nUser-agent: *\nContent-Signal: ai-train=no"
    assert said_no(file) is None and said_no(file, product="other") == "Content-Signal: ai-train=no"
    assert said_no("Content-Signal: ai-train=no\nUser-agent: *\nAllow: /") is None


def test_header_lines() -> None:
    said = header_preferences("Content-Usage", ["train-ai=n, search=y", "ai-train=y;exact"])
    assert [(each.use, each.agrees) for each in said] == [("train-ai", False), ("search", True), ("ai-train", True)]
