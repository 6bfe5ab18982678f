"""What a page itself says of its pictures: the right answers that retrieval is measured against.

Never what an encoder matched: labels and matches come from the teacher that the model learns from, and a figure
against them would say how well it copies the teacher.

The rule. A page speaks of a picture in its caption, its alternative text and its title attribute. Each of the three is
looked for among the document's sentences, as words without case or punctuation: a sentence that lies inside it is
right, and so is a sentence that contains it and is no more than twice as long. Where no sentence is, the words
themselves are the answer: alternative text seldom stands in the running text, and is meant to stand for the picture.
Either way it takes FEWEST_WORDS words. A picture of which the page says nothing is not asked about.
"""

from __future__ import annotations

import re
import unicodedata
from dataclasses import dataclass

from trainer.data.shards import Document

SOURCES = ("caption", "alt", "title")
FEWEST_WORDS = 3  # "Figure 3" and "logo" tell no picture from another

# Scripts that put no spaces between words: each letter counts as one.
_UNSPACED = "\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u9fff"
_WORD = re.compile(rf"[{_UNSPACED}]|[^\W_{_UNSPACED}]+")
# Paths, names of files and formulas, which tools put into alternative text for want of words.
_NO_WORDS = re.compile(r"\S*[/\\_]\S*|\S+\.\w{2,4}(?=\s|$)")


@dataclass(frozen=True)
class GoldPair:
    """A picture and a text that its page gives it."""

    image: int  # slice
    text: str
    sentence: int | None  # slice of the sentence that is the text, None where no sentence is


def comparable(text: str) -> str:
    """The words of a text in one form: "The GUI, at 50%." and "the gui at 50" are the same."""
    return " ".join(_WORD.findall(unicodedata.normalize("NFKC", text).casefold()))


def statement(text: str) -> str:
    """`comparable` without numbers: "Fig. 9 Default plot" and "Fig. 12 Default plot" say the same of their pictures."""
    return " ".join(word for word in comparable(text).split() if not word.isnumeric())


def gold_pairs(document: Document) -> list[GoldPair]:
    """Pairs by the rule at the top of this file, by picture (at its first place), source and place of the sentence.

    A text that several sources give a picture is one pair.
    """
    slices = document.slices
    sentences = {i: comparable(document.sentence(i)) for i, piece in enumerate(slices) if not piece.is_image}
    first: dict[int, int] = {}
    for index, piece in enumerate(slices):
        if piece.is_image:
            first.setdefault(document.image_of(index), index)
    pairs: list[GoldPair] = []
    for image, index in first.items():
        known: set[str] = set()
        for source in SOURCES:
            said = " ".join(str(document.image_field(image, source) or "").split())
            texts: list[tuple[str, int | None]] = [
                (document.sentence(i), i)
                for i, words in sentences.items()
                if _says(document.sentence(i), words, said, comparable(said))
            ]
            if not texts and _has_words(said):
                texts = [(said, None)]
            for text, sentence in texts:
                if statement(text) not in known:
                    known.add(statement(text))
                    pairs.append(GoldPair(index, text, sentence))
    return pairs


def _says(sentence: str, words: str, said: str, said_words: str) -> bool:
    """Whether a sentence is what is said of a picture; both as they stand and as `comparable` words."""
    if f" {words} " in f" {said_words} ":
        return _has_words(sentence)
    inside = f" {said_words} " in f" {words} " and 2 * len(said_words.split()) >= len(words.split())
    return inside and _has_words(said)


def _has_words(text: str) -> bool:
    """Whether a text has FEWEST_WORDS words with a letter in them."""
    words = comparable(_NO_WORDS.sub(" ", text)).split()
    return sum(any(letter.isalpha() for letter in word) for word in words) >= FEWEST_WORDS
