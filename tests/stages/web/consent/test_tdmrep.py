"""tdmrep.json: the first rule that matches, and what is no rule."""

import json
from typing import Any

import pytest

from stages.web.consent.tdmrep import is_reserved, location_of, read_locations

EXAMPLE = [
    {"location": "/directory-a/", "tdm-reservation": 1},
    {"location": "/directory-b/html/", "tdm-reservation": 1, "tdm-policy": "https://h/policy.json"},
    {"location": "/directory-b/images/*.jpg", "tdm-reservation": 0},
]
MOST = 10_000


def told(file: Any, path: str) -> str | None:
    body = file if isinstance(file, bytes) else json.dumps(file).encode()
    found = location_of(read_locations(body, MOST), f"http://h{path}")
    return found and found.line


@pytest.mark.parametrize(
    ("path", "line"),
    [
        ("/directory-a/x.pdf", "/directory-a/ tdm-reservation: 1"),
        ("/directory-b/html/", "/directory-b/html/ tdm-reservation: 1, tdm-policy: https://h/policy.json"),
        ("/directory-b/images/a.jpg", "/directory-b/images/*.jpg tdm-reservation: 0"),
        ("/directory-b/images/a.png", None),
        ("/", None),
    ],
)
def test_the_reports_example(path: str, line: str | None) -> None:
    assert told(EXAMPLE, path) == line


@pytest.mark.parametrize(
    ("file", "line"),
    [
        ([{"location": "/x", "tdm-reservation": 0}, {"location": "/", "tdm-reservation": 1}], "/x tdm-reservation: 0"),
        ([{"location": "/", "tdm-reservation": 1}, {"location": "/x", "tdm-reservation": 0}], "/ tdm-reservation: 1"),
        ([{"location": "/x$", "tdm-reservation": "1"}], "/x$ tdm-reservation: 1"),
        ({"location": "/", "tdm-reservation": True}, "/ tdm-reservation: 1"),
        ([{"location": "x", "tdm-reservation": 1}], "/x tdm-reservation: 1"),
        ([{"location": "/%78", "tdm-reservation": 1}], "/%78 tdm-reservation: 1"),
        ([{"location": "/"}, 3, None, {"location": 7, "tdm-reservation": 1}], None),
        ([{"location": "/", "tdm-reservation": 1, "tdm-policy": {}}], "/ tdm-reservation: 1"),
        (b"<html>not found", None),
        (b"", None),
        (b"\xff\xfe\x00", None),
        (b"[" * 5000, None),
        (b"1e999999", None),
    ],
)
def test_files_of_all_kinds(file: Any, line: str | None) -> None:
    assert told(file, "/x") == line


def test_of_a_file_that_is_too_long_the_rules_that_are_whole_count() -> None:
    rules = [{"location": f"/{number}$", "tdm-reservation": 1} for number in range(1000)]
    body = json.dumps(rules).encode()
    assert len(body) > MOST
    for given in (body, body[:MOST]):
        assert told(given, "/7") == "/7$ tdm-reservation: 1"
        assert told(given, "/999") is None


def test_what_reserves() -> None:
    assert [is_reserved(value) for value in (1, "1", " 1 ", True)] == [True] * 4
    assert [is_reserved(value) for value in (0, "0", False, 2, "", None, "yes", 1.5)] == [False] * 8
