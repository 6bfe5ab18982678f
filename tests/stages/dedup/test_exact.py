"""The URL that a page is known by."""

from __future__ import annotations

import pytest

from stages.dedup.exact import url_key


@pytest.mark.parametrize(
    ("url", "canonical", "key"),
    [
        ("http://h/a?x=1", "http://h/a", "http://h/a"),
        ("http://h/a", None, "http://h/a"),
        ("http://h/a", "http://other/a", "http://h/a"),
        ("http://h/a", "http://h/", "http://h/a"),
        ("http://h/", "http://h/", "http://h/"),
        ("http://h/a", "http://h/?p=7", "http://h/?p=7"),
    ],
)
def test_url_key(url: str, canonical: str | None, key: str) -> None:
    assert url_key(url, canonical) == key
