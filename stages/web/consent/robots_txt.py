"""robots.txt as RFC 9309 reads it: groups by product token, the most specific rule, and lines that others added to it.

Records that are not defined there neither end a group nor belong to none: Crawl-delay and the signals of
stages.web.consent.content_signals hold for the group that they stand in, RSL's License for the whole file. What
webmasters often mistype is read as they meant it, as in Google's parser: a missing colon, "Dissallow", "Useragent".
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

from stages.web.consent.content_signals import KEYS as SIGNAL_KEYS
from stages.web.consent.content_signals import Preference, preferences
from stages.web.consent.patterns import Pattern, path_of

_LINE_END = re.compile(rb"\r\n|\r|\n")
# Of UTF-8, also one that lost its end, and of UTF-16.
_BOM = re.compile(rb"\xef(?:\xbb\xbf?)?|\xff\xfe|\xfe\xff")
_BLANKS = b" \t\x0b\x0c"
# RFC 9110, 5.6.2; a version stands behind a slash (10.1.5).
_TOKEN = re.compile(rb"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_AGENT_KEYS = frozenset({b"user-agent", b"useragent", b"user agent"})
_ALLOW_KEYS = frozenset({b"allow"})
_DISALLOW_KEYS = frozenset({b"disallow", b"dissallow", b"dissalow", b"disalow", b"diasllow", b"disallaw"})
_WITHOUT_COLON = _AGENT_KEYS | _ALLOW_KEYS | _DISALLOW_KEYS
EVERYONE = "*"


@dataclass(frozen=True, slots=True)
class Rule:
    """An Allow or Disallow line."""

    allows: bool
    pattern: Pattern

    @property
    def line(self) -> str:
        """As the file has it, more or less: "Disallow: /private/"."""
        said = self.pattern.text.decode("utf-8", "replace")
        return f"{'Allow' if self.allows else 'Disallow'}: {said}"


@dataclass(frozen=True)
class Group:
    """What holds for one crawler: all groups that name it, as one."""

    rules: tuple[Rule, ...] = ()
    """The most specific first; of equally specific ones those that allow."""
    crawl_delay: float = 0.0
    """Seconds, the longest that is asked for; 0 for none."""
    preferences: tuple[Preference, ...] = ()

    def deciding(self, path: bytes) -> Rule | None:
        """The rule that decides about a path (stages.web.consent.patterns.path_of); None where no rule speaks of it."""
        return next((rule for rule in self.rules if rule.pattern.matches(path)), None)


@dataclass
class _Record:
    """A group as it stands in the file."""

    agents: set[str] = field(default_factory=set)
    rules: list[Rule] = field(default_factory=list)
    delays: list[float] = field(default_factory=list)
    preferences: list[Preference] = field(default_factory=list)


class RobotsTxt:
    """A parsed file. Any octets are one; what is no line of it says nothing."""

    def __init__(self, body: bytes) -> None:
        # `licenses`: absolute URLs of licence terms (RSL 1.0), `sitemaps`: of sitemaps, for whoever reads them.
        records, self.licenses, self.sitemaps = _read(body)
        self._records: dict[str, list[_Record]] = {}
        for record in records:
            for agent in record.agents:
                self._records.setdefault(agent, []).append(record)
        # A file may name thousands; who reads it is one of them.
        self._groups: dict[str, Group] = {}

    def group(self, product: str) -> Group:
        """What holds for a product token, without case: its own groups, else those for everyone, else nothing."""
        agent = product.lower()
        if agent not in self._groups:
            self._groups[agent] = _merged(self._records.get(agent) or self._records.get(EVERYONE) or ())
        return self._groups[agent]

    def deciding(self, url: str, product: str) -> Rule | None:
        """The rule that decides about a canonical URL; None where none does, and for robots.txt itself."""
        path = path_of(url)
        return None if path == b"/robots.txt" else self.group(product).deciding(path)


def _merged(records: Iterable[_Record]) -> Group:
    together = _Record()
    for record in records:
        together.rules += record.rules
        together.delays += record.delays
        together.preferences += record.preferences
    distinct = {(rule.allows, rule.pattern.pieces, rule.pattern.ends): rule for rule in reversed(together.rules)}
    ordered = sorted(reversed(distinct.values()), key=lambda rule: (-rule.pattern.octets, not rule.allows))
    return Group(tuple(ordered), max(together.delays, default=0.0), tuple(together.preferences))


def _read(body: bytes) -> tuple[list[_Record], tuple[str, ...], tuple[str, ...]]:
    records: list[_Record] = []
    urls: dict[bytes, dict[str, None]] = {b"license": {}, b"sitemap": {}}
    current: _Record | None = None
    begun = False  # whether the group has a rule: the next user agent is another group's
    for key, value in _lines(body):
        if key in _AGENT_KEYS:
            if current is None or begun:
                current, begun = _Record(), False
                records.append(current)
            if (agent := _product(value)) is not None:
                current.agents.add(agent)
        elif key in urls:
            if re.match(rb"https?://[^ \t]+$", value, re.IGNORECASE):
                urls[key].setdefault(value.decode("utf-8", "replace"))
        elif current is None:
            continue  # a rule of no group
        elif key in _ALLOW_KEYS or key in _DISALLOW_KEYS:
            begun = True
            if (rule := _rule(key in _ALLOW_KEYS, value)) is not None:
                current.rules.append(rule)
        elif key == b"crawl-delay":
            if (delay := _seconds(value)) is not None:
                current.delays.append(delay)
        elif key in SIGNAL_KEYS:
            current.preferences += preferences(key, value)
    return records, tuple(urls[b"license"]), tuple(urls[b"sitemap"])


def _lines(body: bytes) -> Iterator[tuple[bytes, bytes]]:
    """(key in lower case, value) of every line that has both."""
    if (bom := _BOM.match(body)) is not None:
        body = body[bom.end() :]
    # A file in UTF-16 is its ASCII with a zero beside every octet.
    for line in _LINE_END.split(body.replace(b"\0", b"")):
        line = line.partition(b"#")[0].strip(_BLANKS)
        key, colon, value = line.partition(b":")
        if not colon:
            words = line.split(None, 1)
            if len(words) != 2 or words[0].lower() not in _WITHOUT_COLON or len(words[1].split()) > 1:
                continue
            key, value = words
        yield key.strip(_BLANKS).lower(), value.strip(_BLANKS)


def _product(value: bytes) -> str | None:
    """The product token of a user-agent line in lower case, its version cut off; None for no token."""
    found = _TOKEN.match(value)
    if found is None:
        return None
    # "Somebot*" is written by people who think of beginnings; there are none.
    return found[0].rstrip(b"*").decode("ascii").lower() or EVERYONE


def _rule(allows: bool, value: bytes) -> Rule | None:
    """The rule of a value; None for one that matches nothing.

    A path without its slash is no path of RFC 9309. What it disallows is plain all the same; what it would allow is
    left to the other rules.
    """
    if not value:
        return None
    if not value.startswith((b"/", b"*")):
        if allows:
            return None
        value = b"/" + value
    return Rule(allows, Pattern.of(value))


def _seconds(value: bytes) -> float | None:
    try:
        seconds = float(value.decode("ascii"))
    except ValueError:
        return None
    return seconds if math.isfinite(seconds) and seconds >= 0 else None
