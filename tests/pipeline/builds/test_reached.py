"""When not one page was got: one line with the cause and the remedy."""

from __future__ import annotations

import pytest

from pipeline.builds.reached import failing, fails_too_often, out_of_reach
from schemas.contract import table_from_rows
from schemas.manifest import PhaseRecord
from schemas.page import PAGE
from tests.pipeline.small_corpus import SITE, page

AGAIN = "python -m pipeline.build --spec small.yaml --out out --retry-failed"


def test_one_page_is_enough() -> None:
    parts = [table_from_rows(rows, PAGE) for rows in ([page("/a", "error", reason="connection")], [page("/b")])]
    assert out_of_reach(parts, AGAIN) is None and out_of_reach([], AGAIN) is None


@pytest.mark.parametrize(
    ("rows", "said"),
    [
        (
            [("/b", "connection", "refused", True), ("/a", "connection", "refused", True)],
            "not one page could be read: the connection was refused or broke (2); "
            f"the first is {SITE}/a: refused; ask again with {AGAIN}",
        ),
        (
            [("/a", "private_address", "127.0.0.1 is private", False)],
            f"not one page could be read: lies in a private network (1); the first is {SITE}/a: 127.0.0.1 is private; "
            "crawl.allow_private_networks: true lets interloom in",
        ),
    ],
)
def test_the_cause_and_what_to_do(rows: list[tuple[str, str, str, bool]], said: str) -> None:
    found = [page(p, "error", reason=reason, detail=detail, retryable=again) for p, reason, detail, again in rows]
    assert out_of_reach([table_from_rows(found, PAGE)], AGAIN) == said


def record(fetched: int, failed: int, phase: str = "pages") -> PhaseRecord:
    counts = {"pages": 1000, "fetched": fetched, "failed": failed}
    return PhaseRecord(phase, "key", 0, "table", "digest", fetched + failed, (), (), {}, counts, {})


@pytest.mark.parametrize(
    ("fetched", "failed", "most", "stops"),
    [
        (9, 90, 0.0, False),  # too few
        (10, 90, 0.9, False),
        (9, 91, 0.9, True),
        (0, 1000, 1.0, False),
        (999, 1, 0.0, True),
        (1000, 0, 0.0, False),
    ],
)
def test_a_share_of_failures_above_the_bound_stops(fetched: int, failed: int, most: float, stops: bool) -> None:
    assert fails_too_often(record(fetched, failed), most) is stops
    rows = [page("/a", "error", reason="connection")]
    assert (failing(record(fetched, failed), [table_from_rows(rows, PAGE)], most, AGAIN) is not None) is stops


def test_the_cause_of_a_share_of_failures() -> None:
    rows = [
        page("/c", "error", reason="dns", detail="no name", retryable=True),
        page("/b", "error", reason="http_status", detail="HTTP status 404"),
        page("/a", "refused", reason="robots"),
        page("/d"),
        page("/e", "error", reason="dns", detail="no name", retryable=True),
    ]
    parts = [table_from_rows(each, PAGE) for each in (rows[:2], rows[2:])]
    said = (
        "1,999 of 2,000 pages could not be fetched, a share above crawl.max_failed (0.5): the host name does not "
        f"resolve (2), the server answered with an error status (1); the first is {SITE}/b: HTTP status 404; "
        f"ask again with {AGAIN}; or raise the bound"
    )
    assert failing(record(1, 1999), parts, 0.5, AGAIN) == said
