"""Text: bytes to characters, one normal form, and words.

Every later stage (scores, hashes, shingles, sentences) reads text in this normal form, so two stages can
never disagree about where a word ends.
"""

from __future__ import annotations

import codecs
import functools
import re
import unicodedata

import numpy as np
import xxhash
from chardetng_py import detect
from numpy.typing import NDArray
from w3lib.encoding import html_body_declared_encoding, http_content_type_encoding, read_bom, to_unicode

# Soft hyphens, zero-width spaces and joiners of nothing, byte order marks, directional marks, and the control
# characters that no text needs. U+200C and U+200D stay: Persian and Indic scripts and emoji need them.
_INVISIBLE = re.compile(
    "[\x00-\x08\x0e-\x1b\x7f\x80-\x84\x86-\x9f\u00ad\u180e\u200b\u200e\u200f\u202a-\u202e\u2060-\u2064\u2066-\u2069\ufeff\ufff9-\ufffb]"
)
# Characters that are made of nothing but marks (Unicode has none elsewhere; three Tibetan ones only decompose to some).
_MARKS_ONLY = "".join(
    character
    for character in map(chr, range(0x300, 0x20000))
    if unicodedata.combining(character) or character in "\u0f73\u0f75\u0f81"
)
_MAX_MARKS = 30
# A run that may hold more than is kept: one character stands for up to three marks, also the one before the run.
_LONG_RUN = re.compile(f".?[{_MARKS_ONLY}]{{{_MAX_MARKS // 3 - 1},}}", re.DOTALL)
# Scripts written without spaces between words: each character counts as a word. Ideographs, kana, and what UAX 14 gives
# the line-breaking class SA: Thai, Lao, Burmese, Khmer, Tai Le, New Tai Lue, Tai Tham, Tai Viet.
_UNSPACED = (
    "\u3005-\u3007\u3040-\u30ff\u31f0-\u31ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\uff66-\uff9f"
    "\U0001b000-\U0001b16f\U00020000-\U0003ffff"
    "\u0e00-\u0eff\u1000-\u109f\ua9e0-\ua9ff\uaa60-\uaa7f\u1780-\u17ff\u19e0-\u19ff\u1950-\u19df\u1a20-\u1aaf\uaa80-\uaadf"
)
# Marks that \w leaves out although they stand inside words (Hebrew, Arabic, Indic vowel signs, accents).
_MARKS = "\u0300-\u036f\u0591-\u05bd\u05bf\u05c1\u05c2\u05c4\u05c5\u064b-\u065f\u0670\u0900-\u0963\u0971-\u0dff"
_INNER = f"(?:[^\\W{_UNSPACED}]|[{_MARKS}])+"
_APOSTROPHES = "'\u2019"
_WORD = re.compile(f"[{_UNSPACED}]|{_INNER}(?:[{_APOSTROPHES}]{_INNER})*")

# What a character is to words: between them, part of one, what joins two parts to one, a word by itself.
BETWEEN, PART, JOINT, ALONE = range(4)

# What the charset detector may read of a page.
_DETECT_BYTES = 1 << 20
# Encodings whose text can be pure ASCII bytes, or hold zero bytes: "valid UTF-8" proves nothing against them.
_STATEFUL = ("utf-16", "utf-32", "iso2022", "iso-2022", "hz")


def normalize(text: str) -> str:
    """The normal form of one paragraph: `canonical`, every run of blanks one space, none at the edges."""
    return " ".join(canonical(text).split())


def normalize_lines(text: str) -> str:
    """The normal form of preformatted text: `canonical`, lines and their inner blanks kept, blank edges removed."""
    text = canonical(text).replace("\r\n", "\n").replace("\r", "\n").replace("\xa0", " ")
    return "\n".join(line.rstrip() for line in text.split("\n")).strip("\n")


def canonical(text: str) -> str:
    """Text in NFC without invisible characters, and at most 30 marks in a row; the first 30 as written are kept.

    Putting marks in order takes a time that grows with the square of their run. 30 is the bound of UAX 15's
    stream-safe text format, which no language reaches; its way, to insert U+034F between them, would keep noise.
    """
    text = _INVISIBLE.sub("", text)
    if text.isascii():
        return text
    return unicodedata.normalize("NFC", _LONG_RUN.sub(_bounded_run, text))


def _bounded_run(run: re.Match[str]) -> str:
    """The run with its characters taken apart, less the marks that are too many; as written where none are."""
    decomposed = "".join(unicodedata.normalize("NFD", character) for character in run[0])
    first = next((at for at, character in enumerate(decomposed) if unicodedata.combining(character)), 0)
    most = first + _MAX_MARKS
    return run[0] if len(decomposed) <= most else decomposed[:most]


def words(text: str) -> list[str]:
    """Words in order, as written: runs of letters, digits and marks with inner apostrophes.

    A character of a script without spaces (Han, kana, Thai, Lao, Khmer, Burmese) is a word by itself, beside words of
    other scripts too.
    """
    return _WORD.findall(text)


@functools.cache
def character_kinds() -> NDArray[np.uint8]:
    """What each code point is to `words`, uint8 (0x110000,): BETWEEN, PART, JOINT (between two parts) or ALONE."""
    characters = "".join(map(chr, range(0x110000)))
    kinds = np.full(len(characters), BETWEEN, np.uint8)
    for pattern, kind in ((_INNER, PART), (f"[{_APOSTROPHES}]", JOINT), (f"[{_UNSPACED}]+", ALONE)):
        for run in re.finditer(pattern, characters):
            kinds[run.start() : run.end()] = kind
    return kinds


def text_hash(text: str) -> str:
    """xxh3-128 hex (32 digits) of normalised text."""
    return xxhash.xxh3_128_hexdigest(text.encode("utf-8", "surrogatepass"))


def decode(body: bytes, content_type: str | None) -> tuple[str, str]:
    """Characters of an HTML body and the codec that gave them; never fails.

    Order: byte order mark; valid UTF-8 with non-ASCII characters (which is never an accident); the header's
    charset; the page's own declaration; detection as browsers do it (chardetng, which falls back on windows-1252);
    UTF-8 with U+FFFD. A declared encoding that does not fit the bytes is passed over. Labels follow the WHATWG
    encoding standard through w3lib (latin-1 is windows-1252).
    """
    bom_encoding, bom = read_bom(body)
    if bom_encoding is not None and bom is not None:
        return to_unicode(body[len(bom) :], bom_encoding), bom_encoding
    declared: list[str] = []
    for label in (http_content_type_encoding(content_type), html_body_declared_encoding(body)):
        if label is not None and label not in declared:
            declared.append(label)
    # a page that could be read far enough to find "charset=utf-16" is not UTF-16 (WHATWG: treat as UTF-8)
    if html_body_declared_encoding(body) in ("utf-16", "utf-16-le", "utf-16-be"):
        declared = [label for label in declared if not label.startswith("utf-16")]
    if not any(label.startswith(_STATEFUL) for label in declared):
        text = _decode_utf8(body)
        if text is not None:
            return text, "utf-8"
    for label in declared:
        text = to_unicode(body, f"{label}-be" if label in ("utf-16", "utf-32") else label)
        if _fits(text):
            return text, label
    detected = detect(_sample(body), allow_utf8=False).lower()
    text = to_unicode(body, detected)
    if _fits(text):
        return text, detected
    return body.decode("utf-8", "replace"), "utf-8"


def _decode_utf8(body: bytes) -> str | None:
    """Strict UTF-8, but for a last character that a cut connection left unfinished; else None."""
    try:
        return body.decode("utf-8")
    except UnicodeDecodeError:
        decoder = codecs.getincrementaldecoder("utf-8")()
        try:
            return decoder.decode(body, final=False)
        except UnicodeDecodeError:
            return None


def _fits(text: str) -> bool:
    """Few enough undecodable bytes that the encoding must be the right one (a stray byte is common)."""
    bad = text.count("\ufffd")
    return bad == 0 or bad * 20 <= sum(map(len, re.findall(r"[^\x00-\x7f]+", text)))


def _sample(body: bytes) -> bytes:
    """The stretch of the body the detector reads: from a little before the first byte that is not ASCII."""
    first = re.search(rb"[\x80-\xff]", body)
    start = max(0, first.start() - 1024) if first else 0
    return body[start : start + _DETECT_BYTES]
