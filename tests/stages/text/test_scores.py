"""Text scores against their definitions, on texts small enough to count by hand."""

from __future__ import annotations

from collections import Counter
from math import isqrt
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from schemas.document import DOCUMENT
from stages.row_function import RowFunction
from stages.text.language import identify
from stages.text.scores import (
    OUTPUT,
    ScoreText,
    ScoreTextSettings,
    character_repetition,
    word_repetition,
)

PROSE = (
    "The scattering intensity is calculated in the following way, where the scale is a volume fraction and the "
    "background is added at the end. It should be noted that the result does not depend on the orientation."
)


def documents(*texts: list[str]) -> pa.Table:
    nodes = [[{"kind": "text", "tag": "p", "text": text, "separator": "\n\n"} for text in one] for one in texts]
    return pa.table({"nodes": pa.array(nodes, DOCUMENT.field("nodes").type)})


def score(*texts: list[str]) -> list[dict[str, Any]]:
    return ScoreText(ScoreTextSettings())(documents(*texts)).to_pylist()


def test_row_function() -> None:
    function = ScoreText(ScoreTextSettings())
    assert isinstance(function, RowFunction)
    out = function(documents([PROSE], []))
    assert out.schema.equals(OUTPUT)
    assert out.to_pylist()[1] == {
        "language": None,
        "language_probability": None,
        "character_repetition": None,
        "word_repetition": None,
        "paragraphs": [],
        "error": None,
    }


def test_counts() -> None:
    (row,) = score(["The cat, the dog: 42!", "Share cookies on facebook and twitter."])
    assert row["language"] == "en"
    first, second = row["paragraphs"]
    assert first["position"] == 0
    assert (first["characters"], first["words"]) == (21, 5)
    assert first["special_characters"] == 21 - 12  # 12 letters
    assert first["punctuation"] == 3
    assert first["stop_words"] == 2
    assert (second["words"], second["spam_words"], second["stop_words"]) == (6, 4, 2)
    assert second["flagged_words"] == 0


def test_positions_skip_images() -> None:
    table = documents([PROSE])
    nodes = table.column("nodes").to_pylist()[0]
    image = dict.fromkeys(nodes[0]) | {"kind": "image"}
    table = pa.table({"nodes": pa.array([[image, *nodes, image]], DOCUMENT.field("nodes").type)})
    (row,) = ScoreText(ScoreTextSettings())(table).to_pylist()
    assert [paragraph["position"] for paragraph in row["paragraphs"]] == [1]


def test_languages_without_lists_have_null_scores() -> None:
    (row,) = score(["Это длинный русский текст, который никто не читает, но который понятен каждому."])
    assert row["language"] == "ru"
    assert row["paragraphs"][0]["stop_words"] is None
    assert row["paragraphs"][0]["spam_words"] is None


def test_rows_do_not_depend_on_their_neighbours() -> None:
    texts = [[PROSE, "Short."], ["Das ist ein deutscher Satz."], [], ["x " * 500]]
    assert score(*texts) == [score(text)[0] for text in texts]


def slow_character_repetition(text: str, n: int) -> float:
    counts = Counter(text[i : i + n] for i in range(len(text) - n + 1))
    if not counts:
        return 0.0
    values = sorted(counts.values(), reverse=True)
    top = min(isqrt(len(values)), len(values) - values.count(1))
    return sum(values[:top]) / sum(values)


def slow_word_repetition(text_words: list[str], n: int) -> float:
    counts = Counter(tuple(text_words[i : i + n]) for i in range(len(text_words) - n + 1))
    return sum(c for c in counts.values() if c > 1) / sum(counts.values()) if counts else 0.0


@settings(max_examples=200, derandomize=True, deadline=None)
@given(st.text(alphabet="abcé ", max_size=120), st.integers(2, 6))
def test_repetition_is_the_definition(text: str, n: int) -> None:
    assert character_repetition(text, n) == pytest.approx(slow_character_repetition(text, n))
    assert word_repetition(text.split(), n) == pytest.approx(slow_word_repetition(text.split(), n))


def test_paragraph_repetition_does_not_leak_across_paragraphs() -> None:
    spam = "buy now and save " * 20
    (row,) = score([PROSE, spam, PROSE])
    first, middle, last = row["paragraphs"]
    assert first["word_repetition"] == last["word_repetition"] == 0.0
    assert middle["word_repetition"] > 0.9 and middle["character_repetition"] > 0.2
    assert row["word_repetition"] > 0.9  # of the document: the paragraph comes twice


def test_code_and_tables_do_not_make_a_document_repetitive() -> None:
    table = documents([PROSE] + ["x = 1, y = 2, z = 3"] * 20)
    nodes = table.column("nodes").to_pylist()
    for node in nodes[0][1:]:
        node["tag"] = "tr"
    (row,) = ScoreText(ScoreTextSettings())(pa.table({"nodes": pa.array(nodes, table.schema[0].type)})).to_pylist()
    assert row["word_repetition"] == row["character_repetition"] == 0.0
    assert len(row["paragraphs"]) == 21


@pytest.mark.parametrize(
    ("text", "language"),
    [
        (PROSE, "en"),
        ("Die Streuintensität wird auf folgende Weise berechnet, wobei der Untergrund zum Schluss addiert wird.", "de"),
        ("L'intensité diffusée est calculée de la manière suivante, où l'échelle est une fraction de volume.", "fr"),
        ("La intensidad de dispersión se calcula de la siguiente manera, donde la escala es una fracción.", "es"),
        ("散射强度按以下方式计算，其中比例是体积分数。", "zh"),
        ("散乱強度は次のように計算されます。スケールは体積分率です。", "ja"),
    ],
)
def test_identify(text: str, language: str) -> None:
    found, probability = identify(text)
    assert found == language
    assert probability > 0.9


def test_identify_nothing() -> None:
    assert identify("1234 --- !!") == (None, 0.0)
