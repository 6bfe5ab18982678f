"""Takedown lists: the JSON files under OUT/takedowns that say what later versions of a corpus do without.

What is taken down is named by a hash alone: a list that is passed on tells nothing to who does not know the thing.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass

from schemas.strict_json import parsed

VERSION = 1
# url: sha256 hex of a canonical URL. host: of a host's name, which stands for all below it too, or of "host:port".
# sha256: of the bytes of a page or picture, as fetched or as stored.
KINDS = ("url", "host", "sha256")
# forgotten: somebody asked for it. withdrawn: its site allows it no longer, as a recheck found.
RULES = ("forgotten", "withdrawn")


@dataclass(frozen=True)
class Entry:
    """One thing that is taken down."""

    kind: str  # one of KINDS
    hash: str  # sha256 hex
    rule: str  # of the decisions about it, one of RULES
    said: str  # why, in one line
    # of the snapshot that it is about (schemas.keys.digest); "" for all: another snapshot asks the site again itself
    snapshot: str = ""


@dataclass(frozen=True)
class TakedownList:
    """What one command took down; written once, and never changed."""

    entries: tuple[Entry, ...]
    takedown_version: int = VERSION

    def to_json(self) -> str:
        return json.dumps(asdict(self), indent=1, sort_keys=True)

    @staticmethod
    def from_json(text: str | bytes) -> TakedownList:
        """Parse a list; ValueError, one line, when it is another version or no list."""
        found = parsed(TakedownList, text, "takedown list", "takedown_version", VERSION)
        for entry in found.entries:
            if entry.kind not in KINDS or entry.rule not in RULES:
                raise ValueError(f"not a takedown list: an entry of kind {entry.kind!r}, rule {entry.rule!r}")
        return found
