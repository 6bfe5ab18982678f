"""Strict YAML: one line for everything that is none, and no key twice."""

from __future__ import annotations

import datetime
import json

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from schemas.strict_yaml import NotYaml, load_yaml


@pytest.mark.parametrize(
    ("text", "line", "words"),
    [
        ("a: 1\nb: 2\x00", 2, "the character U+0000"),
        ("a: \x07", 1, "the character U+0007"),
        ("a: \ud800", 1, "the character U+D800"),
        ("a: 1\nb: 2026-13-45", 2, "2026-13-45 is no valid timestamp; in quotes it would be text"),
        ("a: " + "9" * 5000, 1, "9999... is no valid int"),
        ("a: 0b_", 1, "0b_ is no valid int"),
        ("a: !!bool maybe", 1, "maybe is no valid bool"),
        ("a: !!timestamp today", 1, "today is no valid timestamp"),
        ("a: " + "[" * 3000 + "]" * 3000, 1, "more than 50 levels"),
        ("a:\n" + "- " * 3000, 2, "more than 50 levels"),
        ("a: " + "{a: " * 1200 + "}" * 1200, 1, "more than 50 levels"),
        ("a: 1\nb: 2\n'a': 3", 3, "the key 'a' stands twice in one mapping, first in line 1"),
        ("m: {a: 1, b: 2,\n    a: 3}", 2, "the key 'a' stands twice in one mapping, first in line 1"),
        ("a: !!python/object/apply:os.system [echo]", 1, "could not determine a constructor"),
        ("a: [", 1, "expected the node content"),
        ("--- 1\n--- 2", 2, "another document"),
        ("{? [a] : 1}", 1, "unhashable key"),
    ],
)
def test_mistakes_are_one_line_with_its_number(text: str, line: int, words: str) -> None:
    with pytest.raises(NotYaml) as caught:
        load_yaml(text)
    assert words in str(caught.value) and "\n" not in str(caught.value) and caught.value.line == line
    assert len(str(caught.value)) < 200


def test_what_safe_yaml_allows_is_allowed() -> None:
    assert load_yaml("") is None and load_yaml("\ufeffa: 1") == {"a": 1}
    assert load_yaml("a: 2026-11-05") == {"a": datetime.date(2026, 11, 5)}
    # A merge may name what it overrides, more than once, and the same key may stand in two mappings.
    text = "b: &b {x: 1}\nc: &c {<<: *b, x: 2}\nd: *c\ne: {<<: *c, x: 3}"
    assert load_yaml(text) == {"b": {"x": 1}, "c": {"x": 2}, "d": {"x": 2}, "e": {"x": 3}}
    assert load_yaml("a: " + "[" * 40 + "]" * 40)


@pytest.mark.parametrize("text", ["1e-4", "1E5", "1e+3", "-1e3", "+.5e2", "12.e2", "1.5e3", "3.0e-3", "0e0"])
def test_a_number_with_an_exponent_is_a_number(text: str) -> None:
    for found in (load_yaml(text), load_yaml(f"a: {text}")["a"], load_yaml(f"[{text}, x]")[0]):
        assert isinstance(found, float) and found == float(text)
    assert load_yaml(f"['{text}', \"{text}\", !!str {text}]") == [text] * 3


@given(st.floats(allow_nan=False, allow_infinity=False))
def test_a_float_as_python_or_json_writes_it_is_that_float(number: float) -> None:
    for text in (repr(number), json.dumps(number), f"{number:e}", f"{number:.17E}"):
        assert load_yaml(f"a: {text}") == {"a": float(text)}


@pytest.mark.parametrize("text", ["e5", "1e", "1e-", "1e5x", "1e 5", "0x1e", "1e5.0", "1_0e5", "--1e5", "f1e5"])
def test_what_only_looks_like_one_stays_what_it_was(text: str) -> None:
    assert load_yaml(text) == yaml.safe_load(text)
