"""Path patterns of robots.txt and of the files that took them over: `*` and `$` (RFC 9309, 2.2.2 and 2.2.3).

Octets outside ASCII and reserved ones compare equal to their escapes, escaped unreserved ones to themselves, on both
sides. A match takes a time that grows with pattern and path together: nothing is tried twice.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from urllib.parse import urlsplit

_ESCAPE = re.compile(rb"%([0-9A-Fa-f]{2})")
# RFC 3986, 2.3; and the slash: encoded or not it parts segments, but a compared path need not grow threefold.
_PLAIN = frozenset(b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-._~/")
_SPELLED = [bytes([octet]) if octet in _PLAIN else b"%%%02X" % octet for octet in range(256)]


def spelled(text: bytes) -> bytes:
    """Octets in the one spelling that is compared: plain where unreserved or a slash, else escaped in upper case."""
    if b"%" in text:
        text = _ESCAPE.sub(lambda found: bytes([int(found[1], 16)]), text)
    return b"".join([_SPELLED[octet] for octet in text])


def path_of(url: str) -> bytes:
    """What of a URL is compared: its path and query, as `spelled`; "/" where it has neither."""
    parts = urlsplit(url)
    path = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    return spelled(path.encode("utf-8", "surrogatepass"))


@dataclass(frozen=True, slots=True)
class Pattern:
    """A pattern, ready to be compared."""

    text: bytes
    """As the file has it."""
    pieces: tuple[bytes, ...]
    """What stands between its stars, `spelled`."""
    ends: bool
    """Whether the path ends where the pattern does."""

    @staticmethod
    def of(text: bytes) -> Pattern:
        """The pattern that a file's octets are."""
        ends = text.endswith(b"$")
        pieces = (text[:-1] if ends else text).split(b"*")
        # Several stars in a row say what one does.
        kept = [piece for place, piece in enumerate(pieces) if piece or place in (0, len(pieces) - 1)]
        return Pattern(text, tuple(map(spelled, kept)), ends)

    @property
    def octets(self) -> int:
        """How specific it is: its octets, an escape counted as the one that it stands for (RFC 9309, 2.2.2)."""
        return len(_ESCAPE.sub(b"x", self.text))

    def matches(self, path: bytes) -> bool:
        """Whether a path, as `path_of` gives it, begins with the pattern, or is it where the pattern has an end."""
        first, *others = self.pieces
        if not path.startswith(first):
            return False
        if not others:
            return not self.ends or len(path) == len(first)
        at = len(first)
        last = others.pop() if self.ends else b""
        # The first place of each piece leaves the most room for those after it, so no other has to be tried.
        for piece in others:
            at = path.find(piece, at)
            if at < 0:
                return False
            at += len(piece)
        return not self.ends or (len(path) - at >= len(last) and path.endswith(last))
