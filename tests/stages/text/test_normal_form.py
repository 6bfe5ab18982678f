"""Normal form and words."""

from __future__ import annotations

import time
import unicodedata
from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stages.text.normal_form import (
    ALONE,
    BETWEEN,
    JOINT,
    PART,
    canonical,
    character_kinds,
    decode,
    normalize,
    normalize_lines,
    text_hash,
    words,
)


def test_normalize() -> None:
    assert normalize("  Cafe\u0301\u00a0au\tlait\u200b \u3000so\u00adft\n") == "Café au lait soft"


@settings(max_examples=300, derandomize=True, deadline=None)
@given(st.text())
def test_normalize_is_idempotent_and_canonical(text: str) -> None:
    once = normalize(text)
    assert normalize(once) == once
    assert normalize(unicodedata.normalize("NFD", once)) == once
    assert once == once.strip() and "  " not in once


def test_normalize_lines_keeps_the_shape_of_code() -> None:
    assert normalize_lines("\r\n\n  if x:\r\n\ty()   \n\n\n") == "  if x:\n\ty()"


def marks_in_a_row(text: str) -> int:
    marks = "".join("m" if unicodedata.combining(each) else " " for each in unicodedata.normalize("NFD", text))
    return max(map(len, marks.split()), default=0)


# Letters, marks that compose, that change places and that stand for several, and what is taken out between them.
MARKED = st.text("aé\u1f82\u0f71\u0f73\u0344\u0301\u0316\u0345\u05b0\u3099が\u00ad \n", max_size=120)


@settings(max_examples=300, derandomize=True, deadline=None)
@given(MARKED)
def test_a_row_of_marks_is_bounded_and_the_form_is_final(text: str) -> None:
    for form in (normalize, normalize_lines):
        once = form(text)
        assert form(once) == once
        assert form(unicodedata.normalize("NFD", once)) == once
        assert marks_in_a_row(once) <= 30
    if marks_in_a_row(text.replace("\u00ad", "")) <= 30:
        assert canonical(text) == unicodedata.normalize("NFC", text.replace("\u00ad", ""))


def test_the_first_thirty_marks_are_kept() -> None:
    assert normalize("a" + "\u0316" * 29 + "\u0301" + "\u0302" * 9 + "b") == "\u00e1" + "\u0316" * 29 + "b"
    assert marks_in_a_row(normalize("\u1f82" + "\u0316" * 40)) == 30  # the letter's own three count


@pytest.mark.slow
@pytest.mark.parametrize("form", [normalize, normalize_lines])
@pytest.mark.parametrize(
    "unit", ["\u0301\u0316", "\n", "\r\n \t", "\u00ad\u0301\u0316", "a\u0301\u00ad", "\u0344\u0f73"]
)
def test_a_normal_form_takes_a_time_that_grows_with_the_text(form: Callable[[str], str], unit: str) -> None:
    start = time.process_time()
    form("a" + unit * 200_000 + "x" + unit * 200_000)
    assert time.process_time() - start < 5  # many minutes, if each looked at all the others


def test_words() -> None:
    assert words("Don't stop \u2014 it\u2019s 3.5 o'clock!") == ["Don't", "stop", "it\u2019s", "3", "5", "o'clock"]
    assert words("我们 went") == ["我", "们", "went"]
    assert words("हिन्दी में") == ["हिन्दी", "में"]  # vowel signs stay inside their words
    assert words("ภาษา") == list("ภาษา")
    assert words("--- ...") == []
    # A character of a script without spaces is a word, whatever stands beside it.
    assert words("Python3很好用 人々 ｶﾅ") == ["Python3", *"很好用人々ｶﾅ"]
    assert words("\u1980\u19ab \u1a20\u1a63") == list("\u1980\u19ab\u1a20\u1a63")


@settings(derandomize=True, deadline=None)
@given(st.text(st.one_of(st.characters(codec="utf-8"), st.sampled_from("a9_'\u2019 \u0301\u6211\u0e01")), max_size=40))
def test_kinds_of_characters_say_where_words_are(text: str) -> None:
    kinds = [BETWEEN, *character_kinds()[[ord(character) for character in text]].tolist(), BETWEEN]
    parted = ""
    for character, before, kind, after in zip(text, kinds, kinds[1:], kinds[2:], strict=False):
        inside = kind == PART or (kind == JOINT and before == after == PART)
        parted += character if inside else f" {character} " if kind == ALONE else " "
    assert [word for word in parted.split(" ") if word] == words(text)


def test_text_hash_is_stable() -> None:
    assert text_hash("interloom") == text_hash("interloom")
    assert text_hash("a") == "a96faf705af16834e6c632b61e964e1f"


@pytest.mark.parametrize(
    ("text", "encoding"),
    [
        ("Le café est fermé", "windows-1252"),
        ("El señor compró una piñata", "windows-1252"),
        ("Die Straße führt über schöne Hügel", "windows-1252"),
        ("Zażółć gęślą jaźń, czyli krótki pangram", "windows-1250"),
        ("Съешь же ещё этих мягких булок", "windows-1251"),
        ("Αυτό είναι ένα σύντομο κείμενο", "windows-1253"),
        ("これは天気についての短いページです", "shift_jis"),
    ],
)
def test_a_short_page_without_a_charset_is_read_as_browsers_read_it(text: str, encoding: str) -> None:
    assert decode(f"<p>{text}</p>".encode(encoding), "text/html") == (f"<p>{text}</p>", encoding)
