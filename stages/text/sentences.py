"""Sentences: character spans of the sentences of a text, by language.

The rules (abbreviations, initials, numbered lists, CJK and other full stops, ~300 languages) are those of
Wikimedia's `sentencex`; https://github.com/wikimedia/sentencex. Here: lines, bounds, exact spans, and what that library
parts and scholarly texts hold together ("Eq. 2", "Yan et al. [3] proposed").
"""

from __future__ import annotations

import re
from collections.abc import Iterator

import numpy as np
import pyarrow as pa
from pydantic import Field
from sentencex import get_sentence_boundaries

from stages.row_function import ERROR, Settings

SPAN = pa.struct([pa.field("start", pa.int32()), pa.field("end", pa.int32())])
SPANS = pa.list_(SPAN)

# Characters handed to the splitter at a time: its worst inputs (unbalanced quotes) cost the square of this.
WINDOW = 10_000

LIST_MARKER = re.compile(r"\s*\(?(\d{1,4}|[A-Za-z]|[ivxIVX]{1,5})(\.\d{1,3})*[.)]{1,2}\s*")
# Abbreviations that a number follows, those that a reference in brackets may follow, and those before a name.
_NUMBERED = (  # those that are words too ("no", "art") count with a capital alone
    "(?i:figs?|eqs?|eqns?|refs?|sects?|chs?|chaps?|vols?|nr|pp?|exs|defs?|thms?|lems?|appx|algs?|approx|ca|abb|bd|kap|gl"
    "|cf|vgl|ver)|Nos?|NO|Secs?|SEC|Tabs?|TAB|Arts?|ART|Ex|Props?|Cor|Apps?|S|Str|Op"
)
_TITLES = "dr|mr|mrs|ms|prof|st|mt|mm?|mme|mlle|sr|sra|hr|fr|frl|ing|gen|col|capt|lt|rev"
_NUMBER_FOLLOWS = re.compile(rf"(?:\A|[\s(\[,;\u2013\u2014/])(?:{_NUMBERED})\.\s*\Z")
_IS_NUMBER = re.compile(r"[(\[]?(?:[A-Z]\.?)?\d|[(\[][A-Z]?\d|[IVX]+\b(?!\.)")
_CITED = re.compile(rf"(?:\A|[\s(\[])(?:al|etc|e\.g|i\.e|{_NUMBERED})\.\s*[\[(][^\[\]()]*[\])]\s*\Z")
_LABELLED = re.compile(rf"(?:\A|[\s(\[])(?:{_NUMBERED})\.?\s?[(\[]?[A-Z]?[\d.]+[a-z]?[)\]]?\.?\s*\Z")
_INITIAL = re.compile(r"(?<![A-Za-z])[A-Za-z]\.\Z")
_TITLE = re.compile(rf"(?:\A|[\s(])(?:{_TITLES})\.\s*\Z", re.IGNORECASE)
# A quoted sentence goes on behind its closing quote where the words that introduce it follow.
_QUOTED = re.compile("[\u300d\u300f\u201d\u2019]\\s*\\Z")
_GOES_ON = re.compile("[\u3001\uff0c,\u3068]|\u3063\u3066")
_LOOKED_BACK = 80  # characters before a boundary that tell of it


class SentenceSettings(Settings):
    """How text is cut into sentences (spec section `pair.sentences`)."""

    line_breaks: bool = True
    """A line break inside a text node ends a sentence. Default: ours, extraction folds the breaks of the source, so one
    that is left stands for <br>, a list item, a table row or a line of code."""

    whole_tags: tuple[str, ...] = Field(default=("pre",), strict=False)
    """Elements whose text is one sentence, whatever it holds. Default: ours, a line of a program is no sentence."""

    max_chars: int = Field(default=1000, ge=16)
    """Characters of the longest sentence; a longer one is cut at its last blank before. Default: ours, text encoders
    read 77 to 512 tokens, so what lies beyond is not seen anyway."""


class SplitSentences:
    """Row function `sentences`: text, language (BCP 47 or null), tag -> spans list<struct<start, end>>.

    The column tag (schemas.document.NODE) may be absent: then no text is kept whole.

    Spans are characters (code points), in order, not overlapping and stripped: text[start:end] is the sentence.
    What holds no letter or digit is no sentence ("***", a lone bracket). A null text has no spans.
    """

    name = "sentences"
    libraries = ("sentencex",)
    weights = None
    batch_size = 1024
    output = pa.schema([pa.field("spans", SPANS), ERROR])

    def __init__(self, settings: SentenceSettings | None = None) -> None:
        self.settings = settings or SentenceSettings()

    def __call__(self, rows: pa.Table) -> pa.Table:
        """Table with columns text, language and perhaps tag to a table of `output`, row by row."""
        offsets, starts, ends, errors, valid = [0], list[int](), list[int](), list[str | None](), list[bool]()
        tags = rows.column("tag").to_pylist() if "tag" in rows.column_names else [None] * rows.num_rows
        texts, languages = rows.column("text").to_pylist(), rows.column("language").to_pylist()
        for text, language, tag in zip(texts, languages, tags, strict=True):
            spans: list[tuple[int, int]] = []
            error = None
            try:
                if tag in self.settings.whole_tags:
                    spans = whole_spans(text or "", self.settings)
                else:
                    spans = sentence_spans(text or "", language, self.settings)
            except ValueError as failure:
                error = str(failure)
            starts.extend(start for start, _ in spans)
            ends.extend(end for _, end in spans)
            offsets.append(len(starts))
            errors.append(error)
            valid.append(error is None)
        flat = pa.StructArray.from_arrays(
            [pa.array(starts, pa.int32()), pa.array(ends, pa.int32())], fields=list(SPAN.fields)
        )
        mask = None if all(valid) else pa.array(~np.array(valid))
        column = pa.ListArray.from_arrays(pa.array(offsets, pa.int32()), flat, type=SPANS, mask=mask)
        return pa.table([column, pa.array(errors, pa.string())], schema=self.output)


def sentence_spans(text: str, language: str | None, settings: SentenceSettings) -> list[tuple[int, int]]:
    """(start, end) characters of each sentence; ValueError with one line when the splitter fails on the text."""
    # Blanks other than " " trip the splitter's byte arithmetic; one for one, so that positions stay.
    blank = "".join(" " if char.isspace() and char != "\n" else char for char in text)
    code = (language or "en").lower().replace("_", "-").split("-")[0]
    spans = []
    for low, high in _lines(blank, settings.line_breaks):
        for start, end in _windows(blank, low, high, WINDOW):
            for cut, stop in _joined(blank[start:end], _boundaries(blank[start:end], code)):
                for first, last in _windows(blank, start + cut, start + stop, settings.max_chars):
                    if span := _stripped(text, first, last):
                        spans.append(span)
    return spans


def whole_spans(text: str, settings: SentenceSettings) -> list[tuple[int, int]]:
    """(start, end) of the text as one sentence, cut after a blank or line break only where it is too long."""
    blank = "".join(" " if char.isspace() else char for char in text)
    spans = (_stripped(text, start, end) for start, end in _windows(blank, 0, len(blank), settings.max_chars))
    return [span for span in spans if span]


def _lines(text: str, line_breaks: bool) -> Iterator[tuple[int, int]]:
    """Spans between line breaks; between blank lines when a single break is no boundary."""
    separator = "\n" if line_breaks else "\n\n"
    start = 0
    while start <= len(text):
        end = text.find(separator, start)
        if end < 0:
            end = len(text)
        if end > start:
            yield start, end
        start = end + len(separator)


def _windows(text: str, start: int, end: int, longest: int) -> Iterator[tuple[int, int]]:
    """The span in pieces of at most `longest` characters, cut after a blank where there is one."""
    while end - start > longest:
        cut = text.rfind(" ", start, start + longest) + 1
        if cut <= start:
            cut = start + longest
        yield start, cut
        start = cut
    yield start, end


def _boundaries(text: str, language: str) -> list[tuple[int, int]]:
    try:
        found = get_sentence_boundaries(language, text)
    except BaseException as failure:
        # The splitter is native: its panics are no Exception, and nothing else may be swallowed here.
        if type(failure).__name__ != "PanicException":
            raise
        raise ValueError(f"the sentence splitter failed: {str(failure).splitlines()[0]}") from None
    return [(boundary["start_index"], boundary["end_index"]) for boundary in found]


def _joined(text: str, pieces: list[tuple[int, int]]) -> list[tuple[int, int]]:
    """The pieces, those that are one sentence joined."""
    joined: list[tuple[int, int]] = []
    before: tuple[int, int] | None = None  # the piece before, as it was cut
    for start, end in pieces:
        if before is not None and _goes_on(text, before, (start, end)):
            joined[-1] = (joined[-1][0], end)
        else:
            joined.append((start, end))
        before = (start, end)
    return joined


def _goes_on(text: str, piece: tuple[int, int], following: tuple[int, int]) -> bool:
    """Whether two pieces are one sentence.

    A list marker ("2.", "(b)", "iv)") belongs to what it numbers, an abbreviation to its number or name ("Eq. 2", "Dr.
    Who"); what begins in lower case goes on behind a cited name ("Yan et al. [3] say") or a number ("Fig. S1. and");
    what stands without a blank does behind an initial ("A.B"), and the particle behind a Japanese quote.
    """
    start, end = piece
    if end - start <= _LOOKED_BACK and LIST_MARKER.fullmatch(text, start, end):
        return True
    back = text[max(start, end - _LOOKED_BACK) : end]
    ahead = text[following[0] : following[0] + _LOOKED_BACK].lstrip()
    if _NUMBER_FOLLOWS.search(back):
        return _IS_NUMBER.match(ahead) is not None
    if _TITLE.search(back):
        return ahead[:1].isupper()
    if ahead[:1].islower() and (_CITED.search(back) or _LABELLED.search(back)):
        return True
    if _QUOTED.search(back):
        return _GOES_ON.match(ahead) is not None
    first = text[following[0]]
    return first.isascii() and first.isalnum() and _INITIAL.search(back) is not None


def _stripped(text: str, start: int, end: int) -> tuple[int, int] | None:
    piece = text[start:end]
    if not any(char.isalnum() for char in piece):
        return None
    left = len(piece) - len(piece.lstrip())
    right = len(piece) - len(piece.rstrip())
    return start + left, end - right
