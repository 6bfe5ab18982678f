"""How the matches of a version were found, in words: a share of images with a sentence says nothing by itself."""

from __future__ import annotations

from collections.abc import Mapping

from schemas.shard import MATCH_KINDS
from stages.pairing.pair import DISTANCES

_MARKUP, _REFERENCE, _SIMILARITY, _ORDER = MATCH_KINDS
_WORDS = {
    _MARKUP: "by markup, its own caption",
    _REFERENCE: "by reference, a sentence that names its figure",
    _SIMILARITY: "by similarity",
    _ORDER: "by order, the sentence next to it",
}


def share(part: int, whole: int) -> str:
    """As a percentage of no decimals; "none" of nothing."""
    return f"{100 * part / whole:.0f}%" if whole else "none"


def by_kind(counts: Mapping[str, int]) -> list[tuple[str, int]]:
    """Images matched in each way that occurs, in words."""
    found = ((words, counts.get(f"pairs.matched.{kind}", 0)) for kind, words in _WORDS.items())
    return [(words, number) for words, number in found if number]


def by_distance(counts: Mapping[str, int]) -> list[tuple[str, int]]:
    """Matched images by the number of nodes to their sentence, nearest first."""
    found = ((name, counts.get(f"pairs.distance.{name}", 0)) for name in DISTANCES)
    return [(name, number) for name, number in found if number]


def own_captions(counts: Mapping[str, int]) -> str:
    """How many of the images with a caption are matched to it: "81 of 90 (90%)"."""
    captioned, own = (counts.get(f"pairs.{name}", 0) for name in ("captioned_images", "own_captions"))
    return f"{own:,} of {captioned:,} ({share(own, captioned)})" if captioned else "none has one"


def ways(counts: Mapping[str, int]) -> str:
    """Shares of the matches in one line: "61% by markup, 30% by similarity"."""
    found = by_kind(counts)
    whole = sum(number for _, number in found)
    return ", ".join(f"{share(number, whole)} {words.partition(',')[0]}" for words, number in found)
