"""robots.txt line by line: which lines of a file act, however they end and begin, and what of a URL they are about.

The matters are those of the last tests of Google's parser (github.com/google/robotstxt, robots_test.cc and
reporting_robots_test.cc): line ends, byte order marks, other records, the path of a URL, escapes. It counts lines and
directives; what shows here is who may go where.
"""

from __future__ import annotations

import pytest

from stages.web.consent.patterns import Pattern, path_of, spelled
from stages.web.consent.robots_txt import RobotsTxt

SITE = "http://marsh.test"
WHO = ("heron", "stork", "gull")
WHERE = ("/reeds/1", "/nests/1", "/1")
# Two groups with lines of every kind between their rules.
LINES = (
    "User-Agent: heron",
    "Disallow: /nests",
    "User-Agent stork # a colon is missing",
    "these are words and no record",
    "# a comment alone",
    "",
    "feathers: /grey",
    "noindex: /reeds",
    "Disallow: /",
    "Nothing # and a comment",
    "useragent: gull",
    "disallaw: /reeds",
    "site-map: https://marsh.test/a.xml # one",
    "sitemap: https://marsh.test/b.xml",
    "NoIndex: /nests",
)
ENDS = {"unix": "\n", "dos": "\r\n", "mac": "\r"}


def told(file: str | bytes) -> dict[str, str]:
    """For each crawler + or - for each of WHERE."""
    robots = RobotsTxt(file.encode() if isinstance(file, str) else file)
    rules = {who: [robots.deciding(SITE + path, who) for path in WHERE] for who in WHO}
    return {who: "".join("+" if rule is None or rule.allows else "-" for rule in found) for who, found in rules.items()}


@pytest.mark.parametrize("end", ENDS.values(), ids=ENDS)
@pytest.mark.parametrize("last", ["", "\n", "\r\n", "\r", "\n\n\n", "\n# end"])
def test_lines_of_every_kind_stand_beside_each_other_however_they_end(end: str, last: str) -> None:
    assert told(end.join(LINES) + last) == {"heron": "+-+", "stork": "---", "gull": "-++"}


def test_line_ends_may_change_within_a_file() -> None:
    ends = list(ENDS.values()) * len(LINES)
    mixed = "".join(line + end for line, end in zip(LINES, ends, strict=False))
    assert told(mixed) == told("\n".join(LINES))


def test_empty_lines_are_no_lines_by_which_a_group_ends() -> None:
    for end in ENDS.values():
        lines = ["User-Agent: heron", "Allow: /reeds", "User-Agent: stork", "", "", "Disallow: /"]
        assert told(end.join(lines)) == {"heron": "+++", "stork": "---", "gull": "+++"}


@pytest.mark.parametrize(
    ("mark", "read"),
    [
        (b"\xef\xbb\xbf", True),
        (b"\xef\xbb", True),
        (b"\xef", True),
        (b"\xef\x11\xbf", False),
        (b"\xbf\xbb\xef", False),
        (b"\xef\xbb\xbf\xef\xbb\xbf", False),
    ],
)
def test_a_byte_order_mark_may_go_before_the_file_whole_or_begun(mark: bytes, read: bool) -> None:
    file = mark + b"User-Agent: heron\nDisallow: /\nUser-Agent: stork\nDisallow: /nests\n"
    assert told(file) == {"heron": "---" if read else "+++", "stork": "+-+", "gull": "+++"}


def test_a_byte_order_mark_within_the_file_spoils_its_line_and_no_other() -> None:
    file = b"User-Agent: heron\n\xef\xbb\xbfDisallow: /\nDisallow: /nests\n"
    assert told(file) == {"heron": "+-+", "stork": "+++", "gull": "+++"}


@pytest.mark.parametrize("place", range(6))
def test_a_site_map_may_stand_anywhere(place: int) -> None:
    lines = ["User-Agent: heron", "Disallow: /nests", "User-Agent: stork", "", "Disallow: /reeds"]
    lines.insert(place, "Sitemap: https://marsh.test/map.xml")
    assert told("\n".join(lines)) == {"heron": "+-+", "stork": "-++", "gull": "+++"}


@pytest.mark.parametrize(
    ("rest", "path"),
    [
        ("", "/"),
        ("/", "/"),
        ("/reeds", "/reeds"),
        ("/reeds/", "/reeds/"),
        ("/reeds/1?to=http://pond.test/", "/reeds/1?to=http://pond.test/"),
        ("/reeds/1?a=b&c=d#nest", "/reeds/1?a=b&c=d"),
        ("?reeds", "/?reeds"),
        ("/reeds;1#nest", "/reeds;1"),
        ("//reeds/1", "//reeds/1"),
        ("/#nest", "/"),
    ],
)
def test_of_a_url_path_and_query_are_compared(rest: str, path: str) -> None:
    found = path_of(SITE + rest)
    assert found == spelled(path.encode())
    assert Pattern.of(f"{path}$".encode()).matches(found)
    assert not Pattern.of(f"{path}x".encode()).matches(found)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("/á", "/%C3%A1"),
        ("/á", "/%c3%a1"),
        ("/%aa", "/%AA"),
        ("/reeds/nests/1", "/reeds/nests/1"),
        ("/http://marsh.test", "/http://marsh.test"),
        ("/%61", "/a"),
    ],
)
def test_spellings_of_one_path_are_one(one: str, other: str) -> None:
    assert spelled(one.encode()) == spelled(other.encode())
    for pattern, path in ((one, other), (other, one)):
        file = f"User-agent: *\nDisallow: {pattern}".encode()
        assert RobotsTxt(file).deciding(SITE + path, "heron") is not None
        assert RobotsTxt(file).deciding(f"{SITE}/x", "heron") is None
