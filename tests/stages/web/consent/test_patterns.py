"""Path patterns: what RFC 9309 and Google's documentation say of them, and that none takes long."""

import re
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stages.web.consent.patterns import Pattern, path_of, spelled


def matches(pattern: str, path: str) -> bool:
    return Pattern.of(pattern.encode()).matches(path_of("http://h" + path))


@pytest.mark.parametrize(
    ("pattern", "inside", "outside"),
    [
        ("/", ["/", "/x", "/?q"], []),
        ("/*", ["/", "/x"], []),
        ("/$", ["/"], ["/x", "/?x"]),
        (
            "/tea",
            ["/tea", "/tea.html", "/tea/green.html", "/teapots", "/tea.cgi?cup=2"],
            ["/Tea", "/sweet-tea", "/?a=/te"],
        ),
        ("/tea*", ["/tea", "/tea.html", "/teapots/blue.html"], ["/TEA.cgi", "/?drink=tea", "/herbs/tea"]),
        ("/tea/", ["/tea/", "/tea/?cup=2", "/tea/green.html"], ["/tea", "/tea.html", "/herbs/tea/", "/Tea/Green"]),
        (
            "/*.cgi",
            ["/s.cgi", "/b//s.cgi?x", "/s.cgi/", "/go?to=s.cgi/", "/s.cgi.old"],
            ["/", "/s.CGI", "/cgi/", "/go?cgi"],
        ),
        ("/*.cgi$", ["/s.cgi", "/b/s.cgi", "/s.cgi.cgi"], ["/s.cgi?x", "/s.cgi/", "/s.cgi5", "/s?cgi", "/bcgib"]),
        ("/tea*.cgi", ["/tea.cgi", "/teapots/buy.cgi?n=1"], ["/Tea.CGI", "/tea.asp", "/pots/tea.cgi"]),
        ("/tea/*/cups", ["/tea/green/cups", "/tea//cups", "/tea/a/b/cups/1"], ["/tea/cups", "/tea/green/pots"]),
        ("*.jpg", ["/a.jpg", "/a.jpg?w=1"], ["/a.jpeg"]),
        ("/a**b***c", ["/abc", "/axbxc/d"], ["/acb"]),
        ("/a*$", ["/a", "/abc"], ["/b"]),
        ("/*ab*ab$", ["/abab", "/ab/ab"], ["/ab", "/aab", "/abab/"]),
        ("/a$b", ["/a$b", "/a%24bc"], ["/a"]),
        ("", ["/", "/x"], []),
    ],
)
def test_what_a_pattern_is_about(pattern: str, inside: list[str], outside: list[str]) -> None:
    assert [path for path in inside if not matches(pattern, path)] == []
    assert [path for path in outside if matches(pattern, path)] == []


@pytest.mark.parametrize(
    ("pattern", "path"),
    [  # each row of the table of RFC 9309, 2.2.2, and what 2.2.3 says of special characters
        ("/find?in=tea", "/find?in=tea"),
        ("/find?at=https://tea.test", "/find?at=https%3A%2F%2Ftea.test"),
        ("/tea/茶", "/tea/%E8%8C%B6"),
        ("/tea/%E8%8C%B6", "/tea/%e8%8c%b6"),
        ("/tea/%63%75%70", "/tea/cup"),
        ("/tea/five-stars-%2A.html", "/tea/five-stars-*.html"),
        ("/tea/for-%24", "/tea/for-$"),
    ],
)
def test_escapes_compare_as_the_rfc_says(pattern: str, path: str) -> None:
    assert matches(pattern, path)
    assert matches(path.replace("$", "%24").replace("*", "%2A"), path)


def test_what_of_a_url_is_compared() -> None:
    told = {
        "": b"/",
        "/": b"/",
        "?a": b"/%3Fa",
        "/a;b=c?d=/e": b"/a%3Bb%3Dc%3Fd%3D/e",
        "/a//": b"/a//",
        "/é": b"/%C3%A9",
    }
    assert {rest: path_of(f"http://tea.test:8080{rest}") for rest in told} == told


def test_an_escape_is_read_once() -> None:
    assert spelled(b"/%2541%41%zz%") == b"/%2541A%25zz%25"
    assert not matches("/%41", "/%2541")
    assert not matches("/a*b", "/a%2Ac")


def test_octets_count_an_escape_as_one() -> None:
    assert [Pattern.of(text.encode()).octets for text in ("/a", "/%E8%8C%B6", "/茶", "/*$")] == [2, 4, 4, 3]


@settings(derandomize=True, deadline=None, max_examples=300)
@given(st.text("ab/*$", max_size=12), st.text("ab/", max_size=12))
def test_a_pattern_is_the_regular_expression_that_it_stands_for(pattern: str, path: str) -> None:
    body, end = (pattern[:-1], r"\Z") if pattern.endswith("$") else (pattern, "")
    expected = re.match("".join(".*" if each == "*" else re.escape(each) for each in body) + end, "/" + path)
    # "$" elsewhere is itself, and no path here has one
    assert Pattern.of(pattern.encode()).matches(spelled(b"/" + path.encode())) == (expected is not None)


def test_many_stars_take_no_longer_than_many_letters() -> None:
    path = path_of("http://h/" + "a" * 8000)
    start = time.process_time()
    for pattern in ("/" + "*a" * 200_000 + "b", "*" * 400_000 + "b", "/" + "a*" * 4000 + "b$", "/*" + "a" * 7999 + "b"):
        assert not Pattern.of(pattern.encode()).matches(path)
    assert time.process_time() - start < 2
