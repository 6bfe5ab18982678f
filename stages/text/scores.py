"""Text scores: what filters decide over, computed once, for every paragraph and for the whole document.

Ratios are kept as counts, so a document's ratio over any choice of its paragraphs is a division of sums: a
threshold changes without reading text again. Definitions follow OBELICS (web_document_filtering.py) and the
ROOTS filters it comes from, but for word boundaries, which are those of stages.text.normal_form.
"""

from __future__ import annotations

import unicodedata
from functools import lru_cache
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from pydantic import Field, field_validator

from schemas.text_scores import TEXT_SCORES
from stages.row_function import ERROR, Settings
from stages.text.language import LANGUAGES, identify, require_languages
from stages.text.normal_form import text_hash, words
from stages.text.word_lists import FLAGGED_WORDS, SPAM_WORDS, STOP_WORDS

OUTPUT = pa.schema([*TEXT_SCORES, ERROR])

_NOT_PROSE = ("pre", "tr")
_LETTER, _PUNCTUATION = 1, 2


class ScoreTextSettings(Settings):
    """How text is measured; thresholds are elsewhere (`filter:`)."""

    languages: tuple[str, ...] | None = Field(default=None, strict=False)
    """ISO 639-1 codes identification chooses among; null: the 74 of stages.text.language. Default: ours, null, as a
    page may be in any of them."""
    character_ngram: int = Field(default=10, ge=2, le=64)
    """Characters of a repeated piece. Default: OBELICS, 10."""
    word_ngram: int = Field(default=5, ge=2, le=32)
    """Words of a repeated piece. Default: OBELICS, 5."""

    @field_validator("languages")
    @classmethod
    def _known(cls, value: tuple[str, ...] | None) -> tuple[str, ...] | None:
        require_languages(value or ())
        return value


class ScoreText:
    """Documents to scores: column nodes of schemas.document (and `language`, the page's own claim, not used)."""

    name = "score_text"
    libraries = ("numpy", "py3langid", "xxhash")
    weights: str | None = None
    output = OUTPUT
    batch_size = 256

    def __init__(self, settings: ScoreTextSettings) -> None:
        self.settings = settings

    def __call__(self, rows: pa.Table) -> pa.Table:
        """One row a document; a document without text has null language and no paragraphs."""
        return pa.Table.from_pylist([self._row(nodes.as_py()) for nodes in rows.column("nodes")], schema=OUTPUT)

    def _row(self, nodes: list[dict[str, Any]] | None) -> dict[str, Any]:
        if nodes is None:
            return {"error": "no nodes"}
        positions = [i for i, node in enumerate(nodes) if node["kind"] == "text" and node["text"]]
        texts: list[str] = [nodes[i]["text"] for i in positions]
        if not texts:
            return {"paragraphs": [], "error": None}
        prose = [k for k, i in enumerate(positions) if nodes[i]["tag"] not in _NOT_PROSE] or range(len(texts))
        whole_text = "\n".join(texts[k] for k in prose)
        language, probability = identify(whole_text, self.settings.languages or LANGUAGES)
        word_lists = [words(text.replace("\u2019", "'").lower()) for text in texts]
        num_words = np.fromiter(map(len, word_lists), np.int64, len(word_lists))
        codes = _codes("\n".join(texts))
        lengths = np.fromiter(map(len, texts), np.int64, len(texts))
        starts = np.concatenate(([0], np.cumsum(lengths[:-1] + 1)))
        classes = _classes()[codes]
        letters = np.add.reduceat(classes == _LETTER, starts, dtype=np.int64)
        punctuation = np.add.reduceat(classes == _PUNCTUATION, starts, dtype=np.int64)
        numbers: dict[str, int] = {}
        ids = np.fromiter(
            (numbers.setdefault(word, len(numbers)) for text_words in word_lists for word in text_words), np.uint64
        )
        characters = _Ngrams(codes, self.settings.character_ngram)
        sequences = _Ngrams(ids, self.settings.word_ngram)
        top = characters.top_share(starts, starts + lengths)
        word_ends = np.cumsum(num_words)
        repeated = sequences.repeated_share(word_ends - num_words, word_ends)
        return {
            "language": language,
            "language_probability": probability,
            "character_repetition": character_repetition(whole_text, self.settings.character_ngram),
            "word_repetition": word_repetition(
                [word for k in prose for word in word_lists[k]], self.settings.word_ngram
            ),
            "paragraphs": [
                {
                    "position": position,
                    "paragraph_hash": text_hash(texts[i]),
                    "characters": len(texts[i]),
                    "words": int(num_words[i]),
                    "special_characters": len(texts[i]) - int(letters[i]),
                    "punctuation": int(punctuation[i]),
                    "stop_words": _count(word_lists[i], STOP_WORDS.get(language or "")),
                    "flagged_words": _count(word_lists[i], FLAGGED_WORDS.get(language or "")),
                    "spam_words": _count(word_lists[i], SPAM_WORDS.get(language or "")),
                    "character_repetition": float(top[i]),
                    "word_repetition": float(repeated[i]),
                }
                for i, position in enumerate(positions)
            ],
            "error": None,
        }


def character_repetition(text: str, n: int) -> float:
    """Share of the most frequent character n-grams: the top sqrt(distinct), single ones left out (ROOTS)."""
    return float(_Ngrams(_codes(text), n).top_share(np.array([0]), np.array([len(text)]))[0])


def word_repetition(text_words: list[str], n: int) -> float:
    """Share of word n-grams that occur more than once (ROOTS)."""
    numbers: dict[str, int] = {}
    ids = np.fromiter((numbers.setdefault(word, len(numbers)) for word in text_words), np.uint64)
    return float(_Ngrams(ids, n).repeated_share(np.array([0]), np.array([len(ids)]))[0])


class _Ngrams:
    """64-bit hashes of all n-grams of a sequence of symbols, and how often they repeat inside ranges of it."""

    def __init__(self, symbols: NDArray[np.uint32] | NDArray[np.uint64], n: int) -> None:
        self.n = n
        num_hashes = max(0, len(symbols) - n + 1)
        self.hashes = np.zeros(num_hashes, np.uint64)
        mixed = (symbols.astype(np.uint64) + np.uint64(1)) * np.uint64(0x9E3779B97F4A7C15)
        mixed ^= mixed >> np.uint64(29)
        for k in range(n if num_hashes else 0):
            self.hashes *= np.uint64(0xFF51AFD7ED558CCD)
            self.hashes += mixed[k : num_hashes + k]

    def _counts(
        self, starts: NDArray[np.int64], ends: NDArray[np.int64]
    ) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
        """(how often each distinct n-gram of a range occurs, the range, n-grams of each range)."""
        totals = np.maximum(ends - starts - self.n + 1, 0)
        owners = np.repeat(np.arange(len(starts)), totals)
        within = np.arange(len(owners)) - np.repeat(np.cumsum(totals) - totals, totals)
        # the range enters the hash, so that one sort groups equal n-grams of one range
        keys = self.hashes[np.repeat(starts, totals) + within] + owners.astype(np.uint64) * np.uint64(
            0xC4CEB9FE1A85EC53
        )
        order = np.argsort(keys)
        keys = keys[order]
        edges = np.flatnonzero(np.concatenate(([True], keys[1:] != keys[:-1]))) if len(keys) else np.zeros(0, np.int64)
        return np.diff(np.append(edges, len(keys))), owners[order[edges]], totals

    def repeated_share(self, starts: NDArray[np.int64], ends: NDArray[np.int64]) -> NDArray[np.float64]:
        """For each range, the share of its n-grams that occur more than once in it."""
        counts, owners, totals = self._counts(starts, ends)
        repeated = np.bincount(owners, weights=np.where(counts > 1, counts, 0), minlength=len(starts))
        return repeated / np.maximum(totals, 1)

    def top_share(self, starts: NDArray[np.int64], ends: NDArray[np.int64]) -> NDArray[np.float64]:
        """For each range, the share of its sqrt(distinct) most frequent n-grams that occur more than once."""
        counts, owners, totals = self._counts(starts, ends)
        distinct = np.bincount(owners, minlength=len(starts))
        several = counts > 1
        order = np.lexsort((-counts[several], owners[several]))
        counts, owners = counts[several][order], owners[several][order]
        num_several = np.bincount(owners, minlength=len(starts))
        rank = np.arange(len(owners)) - np.repeat(np.cumsum(num_several) - num_several, num_several)
        taken = rank < np.floor(np.sqrt(distinct))[owners]
        return np.bincount(owners[taken], weights=counts[taken], minlength=len(starts)) / np.maximum(totals, 1)


def _count(text_words: list[str], listed: frozenset[str] | None) -> int | None:
    return None if listed is None else sum(map(listed.__contains__, text_words))


def _codes(text: str) -> NDArray[np.uint32]:
    return np.frombuffer(text.encode("utf-32-le", "surrogatepass"), np.uint32)


@lru_cache(maxsize=1)
def _classes() -> NDArray[np.uint8]:
    """Class of every code point: letters (with marks), punctuation, everything else."""
    table = np.zeros(0x110000, np.uint8)
    for code in range(0x110000):
        category = unicodedata.category(chr(code))[0]
        if category in "LM":
            table[code] = _LETTER
        elif category == "P":
            table[code] = _PUNCTUATION
    return table
