"""Preferences about uses of content: Content-Signal (contentsignals.org) and Content-Usage (draft-ietf-aipref-attach).

Both name uses and say yes or no to each: "Content-Signal: search=yes, ai-train=no", "Content-Usage: train-ai=n". They
stand in a group of robots.txt, there also with a path that they are about ("Content-Usage: /essays/ train-ai=n"), or in
an answer's header of the same name.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable
from dataclasses import dataclass

from stages.web.consent.patterns import Pattern

KEYS = {b"content-signal": "Content-Signal", b"content-usage": "Content-Usage"}
HEADERS = tuple(KEYS.values())
_WORD = re.compile(r"\s*=\s*")
_NO = frozenset({"no", "n"})
_YES = frozenset({"yes", "y"})


@dataclass(frozen=True, slots=True)
class Preference:
    """One use and whether it is agreed to."""

    use: str
    """In lower case: "ai-train"."""
    agrees: bool
    pattern: Pattern | None
    """Of the paths it is about; None for all."""
    name: str
    """Of the line or header it stands in: "Content-Signal"."""

    @property
    def line(self) -> str:
        """As it was said, more or less: "Content-Signal: /essays/ ai-train=no"."""
        path = "" if self.pattern is None else f"{self.pattern.text.decode('utf-8', 'replace')} "
        return f"{self.name}: {path}{self.use}={'yes' if self.agrees else 'no'}"


def preferences(key: bytes, value: bytes) -> list[Preference]:
    """Those of a line of robots.txt with one of the KEYS; other words than use=yes and use=no say nothing."""
    pattern = None
    if value.startswith((b"/", b"*")):
        path, _, value = value.partition(b" ")
        pattern = Pattern.of(path)
    return _parsed(KEYS[key], value.decode("utf-8", "replace"), pattern)


def header_preferences(name: str, lines: Iterable[str]) -> list[Preference]:
    """Those of the header lines of one answer; `name`: one of HEADERS."""
    return [each for line in lines for each in _parsed(name, line, None)]


def _parsed(name: str, text: str, pattern: Pattern | None) -> list[Preference]:
    found = []
    for word in re.split(r"[,;\s]+", _WORD.sub("=", text.lower())):
        use, _, value = word.partition("=")
        if use and (value in _YES or value in _NO):
            found.append(Preference(use, value in _YES, pattern, name))
    return found


def refusing(said: Iterable[Preference], path: bytes, uses: Collection[str]) -> Preference | None:
    """The preference that refuses one of the uses for a path (stages.web.consent.patterns.path_of), or None.

    Of each use the most specific preference decides; of equally specific ones the one that refuses.
    """
    best: dict[str, tuple[int, bool, Preference]] = {}
    for each in said:
        if each.use in uses and (each.pattern is None or each.pattern.matches(path)):
            octets = -1 if each.pattern is None else each.pattern.octets
            ranked = (octets, not each.agrees, each)
            if each.use not in best or ranked[:2] > best[each.use][:2]:
                best[each.use] = ranked
    refused = [each for _, refuses, each in best.values() if refuses]
    return min(refused, key=lambda each: each.use, default=None)
