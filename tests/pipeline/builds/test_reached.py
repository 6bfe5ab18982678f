"""When not one page was got: one line with the cause and the remedy."""

from __future__ import annotations

import pytest

from pipeline.builds.reached import out_of_reach
from schemas.contract import table_from_rows
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
