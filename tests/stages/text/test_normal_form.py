"""Normal form and words."""

from __future__ import annotations

import unicodedata

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stages.text.normal_form import decode, normalize, normalize_lines, text_hash, words


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


def test_words() -> None:
    assert words("Don't stop \u2014 it\u2019s 3.5 o'clock!") == ["Don't", "stop", "it\u2019s", "3", "5", "o'clock"]
    assert words("我们 went") == ["我", "们", "went"]
    assert words("हिन्दी में") == ["हिन्दी", "में"]  # vowel signs stay inside their words
    assert words("ภาษา") == list("ภาษา")
    assert words("--- ...") == []


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
