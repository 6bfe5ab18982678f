"""What is right is what the page says, whatever an encoder matched."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from schemas.contract import conform, table_from_rows
from schemas.shard import SHARD
from tests.trainer.fabricated import document
from trainer.data.gold import gold_pairs, statement
from trainer.data.shards import Document, ShardCorpus
from trainer.protocols.questions import ask, page_groups


def page(number: int, split: str = "held_out", **words: str | None) -> dict[str, Any]:
    """A fabricated document whose first picture has these words about it, and the others none."""
    row = document(number, split)
    for image in row["image_info"]:
        image["caption"] = None
    row["image_info"][0].update(words)
    return row


def opened(row: dict[str, Any]) -> Document:
    return Document(conform(table_from_rows([row], SHARD), SHARD).to_batches()[0])


def corpus_of(rows: list[dict[str, Any]], folder: Path) -> ShardCorpus:
    path = folder / "part-00000.arrow"
    table = conform(table_from_rows(rows, SHARD), SHARD)
    with pa.ipc.new_file(str(path), SHARD) as writer:
        writer.write_table(table)
    return ShardCorpus(folder, "v1", [path], "")


# Document 0 shows the astronaut: "An astronaut in an orange suit smiles before a model shuttle. Figure 0 of 1: She
# flew four missions."
ASTRONAUT = "An astronaut in an orange suit smiles before a model shuttle."


@pytest.mark.parametrize(
    ("words", "found"),
    [
        ({"caption": ASTRONAUT}, [(ASTRONAUT, 0)]),
        ({"caption": "an ASTRONAUT in an orange\n suit, smiles before a model shuttle"}, [(ASTRONAUT, 0)]),
        ({"caption": f"Portrait. {ASTRONAUT} By NASA."}, [(ASTRONAUT, 0)]),
        ({"alt": "astronaut in an orange suit smiles"}, [(ASTRONAUT, 0)]),
        ({"alt": "a model shuttle"}, [("a model shuttle", None)]),  # a small part of a sentence is not that sentence
        ({"alt": "Eileen Collins in her orange suit"}, [("Eileen Collins in her orange suit", None)]),
        ({"title": "Eileen Collins  at\nwork"}, [("Eileen Collins at work", None)]),
        ({"caption": ASTRONAUT, "alt": ASTRONAUT}, [(ASTRONAUT, 0)]),
        ({"caption": ASTRONAUT, "alt": "Eileen Collins at work"}, [(ASTRONAUT, 0), ("Eileen Collins at work", None)]),
        ({"alt": "logo"}, []),
        ({"caption": "Figure 3 (a)"}, []),
        ({"alt": "../_images/fit_panel_of_gui.png"}, []),
        ({"alt": "fit panel.png"}, []),
        ({"alt": "https://example.org/one/two/three"}, []),
        ({"alt": r"\frac{a}{b} \sum_i x_i"}, []),
        ({"alt": ""}, []),
        ({"caption": "宇航员微笑"}, [("宇航员微笑", None)]),  # no spaces between words
        ({}, []),
    ],
)
def test_the_rule(words: dict[str, str], found: list[tuple[str, int | None]]) -> None:
    pairs = gold_pairs(opened(page(0, **words)))
    assert [(pair.text, pair.sentence) for pair in pairs] == found
    assert all(pair.image == 2 for pair in pairs)


def test_matches_and_vectors_of_encoders_change_nothing() -> None:
    row = document(3, "held_out")
    before = gold_pairs(opened(row))
    for piece in row["slices"]:
        piece["matched"] = piece["similarity"] = piece["primary"] = piece["shared"] = None
    assert gold_pairs(opened(row)) == before and len(before) == 3


def test_numbers_do_not_make_another_statement() -> None:
    assert statement("Fig. 9 Default plot.") == statement("fig 12: default  plot")
    assert statement("Fig. 9 Default plot") != statement("Fig. 9 Another plot")


def test_what_several_pages_say_of_their_pictures_is_not_asked(tmp_path: Path) -> None:
    rows = [page(number, caption=f"Fig. {number} The default plot") for number in range(3)]
    rows += [page(3, caption="The camera stands on a tripod"), page(4)]
    corpus = corpus_of(rows, tmp_path)
    questions = ask(corpus, range(5), [], 100)
    assert [text.content for text in questions.texts] == ["The camera stands on a tripod"]
    assert [picture.document for picture in questions.pictures] == [3]
    assert [direction.right for direction in questions.directions.values()] == [((0,),), ((0,),), ()]
    # The same words on pages of one cluster are several right answers.
    for row in rows:
        row["cluster_id"] = "0" * 32
    (tmp_path / "one").mkdir()
    questions = ask(corpus_of(rows, tmp_path / "one"), range(5), [], 100)
    assert questions.directions["sentence_to_image"].right == ((0, 1, 2), (3,))
    assert questions.directions["image_to_sentence"].right == ((0,), (0,), (0,), (1,))
    assert questions.directions["image_to_sentence"].pages == (0, 0, 0, 0)


def test_pages_with_a_picture_in_common_are_one(tmp_path: Path) -> None:
    rows = [page(number) for number in range(4)]
    for column in ("images", "image_info"):
        rows[3][column][0] = dict(rows[1][column][0])
    rows[2]["cluster_id"] = rows[0]["cluster_id"]
    groups = page_groups(corpus_of(rows, tmp_path), range(4))
    assert groups[0] == groups[2] != groups[1] == groups[3]
    assert page_groups(corpus_of(rows, tmp_path), []) == {}
