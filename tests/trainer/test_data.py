"""Shards, layout and rows: what a document costs in tokens and where it is cut."""

from __future__ import annotations

import json
import pickle
from dataclasses import replace
from pathlib import Path

import pyarrow as pa
import pytest

from tests.trainer.fabricated import document, write_corpus
from trainer.data.features import PixelSource
from trainer.data.layout import Vocabulary, cut, encode_segment, token_counts
from trainer.data.pixels import decode
from trainer.data.rows import Limits, build_rows, load_rows
from trainer.data.shards import open_corpus
from trainer.errors import CorruptRecordError, UserError
from trainer.model.text import PlainText, byte_tokenizer


@pytest.fixture(scope="module")
def vocabulary() -> Vocabulary:
    tokenizer = byte_tokenizer()
    return Vocabulary(PlainText(tokenizer), 256, 257, 4)


def test_reads_what_the_build_wrote(corpus: Path) -> None:
    opened = open_corpus(str(corpus))
    assert (opened.version, len(opened)) == ("v1", 20)
    by_id = {opened.document(index).document_id: opened.document(index) for index in range(len(opened))}
    for number in (0, 7, 19):
        row = document(number, "train")
        found = by_id[row["document_id"]]
        assert [piece.is_image for piece in found.slices] == [s["kind"] == "image" for s in row["slices"]]
        for index, piece in enumerate(row["slices"]):
            for name in ("primary", "shared"):
                vector = found.vectors(name)[index]
                assert vector is not None and vector.tolist() == piece[name]
            if piece["kind"] == "sentence":
                text = row["nodes"][piece["node"]]["text"][piece["start"] : piece["end"]]
                assert found.sentence(index) == text and text.endswith(".")
            else:
                image = found.image_of(index)
                assert found.image_bytes(image) == row["images"][image]["bytes"]
    assert sorted(set(opened.column("split"))) == ["held_out", "train"]
    assert [(edge.anchor, edge.candidate) for edge in opened.document(0).negatives] == [(0, 2), (0, 2)]
    again = pickle.loads(pickle.dumps(opened))
    assert again.document(3).document_id == opened.document(3).document_id


def test_hash_follows_content(corpus: Path, tmp_path: Path) -> None:
    same = open_corpus(str(write_corpus(tmp_path / "same")))
    other = open_corpus(str(write_corpus(tmp_path / "other", documents=19)))
    assert open_corpus(str(corpus)).hash == same.hash != other.hash
    (same.folder / "manifest.json").unlink()
    # Without a manifest the bytes themselves are hashed, to the same value.
    assert open_corpus(str(same.folder)).hash == same.hash


def test_a_version_that_is_not_there_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="is not a folder"):
        open_corpus(str(tmp_path / "nothing"))
    with pytest.raises(UserError, match="has no shards"):
        open_corpus(str(tmp_path))
    (tmp_path / "part-00000.arrow").write_bytes(b"not arrow")
    with pytest.raises(UserError, match="is not a shard"):
        open_corpus(str(tmp_path))
    with pa.ipc.new_file(str(tmp_path / "part-00000.arrow"), pa.schema([("x", pa.int32())])) as writer:
        writer.write_table(pa.table({"x": pa.array([1], pa.int32())}))
    with pytest.raises(UserError, match="is not a shard"):
        open_corpus(str(tmp_path))


def test_a_segment_is_the_document_in_order(corpus: Path, vocabulary: Vocabulary) -> None:
    opened = open_corpus(str(corpus)).document(0)
    counts = token_counts(opened, vocabulary, 1000)
    (segment,) = cut(counts, len(opened.slices), 1002)
    encoded = encode_segment(opened, segment, vocabulary, 1000)
    assert len(encoded.ids) == segment.tokens
    assert encoded.ids[0] == encoded.ids[-1] == vocabulary.document
    text = bytes_of(encoded.ids, vocabulary)
    assert text.count("#") == 4 * sum(piece.is_image for piece in opened.slices)
    assert text.rstrip().endswith("The end.")
    for index, piece in enumerate(opened.slices):
        first, last = encoded.spans[index]
        if piece.is_image:
            assert encoded.ids[first:last] == [vocabulary.image] * 4
        else:
            assert bytes_of(encoded.ids[:last], vocabulary).endswith(opened.sentence(index))
            assert last - first == 1


def bytes_of(ids: list[int], vocabulary: Vocabulary) -> str:
    tokenizer = vocabulary.tokenizer
    assert isinstance(tokenizer, PlainText)
    return "".join(
        "#"
        if token == vocabulary.image
        else ""
        if token == vocabulary.document
        else tokenizer.tokenizer.decode([token])
        for token in ids
    )


def test_text_that_looks_special_is_text(vocabulary: Vocabulary) -> None:
    ids = vocabulary.tokenizer.encode("a <image> and <|endoftext|>")
    assert vocabulary.image not in ids and vocabulary.document not in ids


@pytest.mark.parametrize("limit", [40, 80, 160, 400])
def test_cutting_loses_no_slice(corpus: Path, vocabulary: Vocabulary, limit: int) -> None:
    opened = open_corpus(str(corpus))
    for index in range(len(opened)):
        found = opened.document(index)
        segments = cut(token_counts(found, vocabulary, limit - 2), len(found.slices), limit)
        assert [piece for s in segments for piece in range(s.first, s.last)] == list(range(len(found.slices)))
        for segment in segments:
            ids = encode_segment(found, segment, vocabulary, limit - 2).ids
            assert len(ids) == segment.tokens <= limit


def test_rows_are_cached_under_their_key(corpus: Path, vocabulary: Vocabulary, tmp_path: Path) -> None:
    opened = open_corpus(str(corpus))
    limits = Limits(160, 4, "bytes")
    rows = load_rows(opened, vocabulary, limits, tmp_path)
    assert rows == build_rows(opened, vocabulary, limits) == load_rows(opened, vocabulary, limits, tmp_path)
    (path,) = tmp_path.iterdir()
    path.write_text("damaged", encoding="utf-8")
    assert load_rows(opened, vocabulary, limits, tmp_path) == rows
    assert json.loads(path.read_text(encoding="utf-8"))
    assert limits.key(opened) != replace(limits, document_tokens=80).key(opened)
    assert any(row.pairs for row in rows) and any(row.negatives for row in rows)


def test_an_unreadable_image_is_named(corpus: Path) -> None:
    found = open_corpus(str(corpus)).document(0)
    good = PixelSource(32, strict=False).image(found, 0)
    assert good[0].shape == (3, 32, 32) and good[1] is None
    broken = found.image_bytes(0)[:200]
    with pytest.raises(CorruptRecordError, match="here: "):
        decode(broken, 32, "here")
