"""Shards, layout and rows: what a document costs in tokens and where it is cut."""

from __future__ import annotations

import json
import math
import pickle
from dataclasses import replace
from pathlib import Path

import pyarrow as pa
import pytest
import torch

from schemas.keys import file_digest
from tests.trainer.conftest import ALONE, tiny
from tests.trainer.fabricated import document, write_corpus
from trainer.data.corpus import check_shards, open_corpus
from trainer.data.features import FeatureSource, PixelSource, build_features, feature_folder
from trainer.data.layout import PlainText, Vocabulary, cut, encode_segment, token_counts
from trainer.data.pixels import decode
from trainer.data.rows import Limits, build_rows, load_rows
from trainer.errors import CorruptRecordError, UserError
from trainer.keys import weights_key
from trainer.model.build import build_model
from trainer.model.text import byte_tokenizer
from trainer.model.vision import Patches
from trainer.parallel.ray_launch import train_here


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


@pytest.mark.slow
def test_hash_follows_content(corpus: Path, tmp_path: Path) -> None:
    same = open_corpus(str(write_corpus(tmp_path / "same")))
    other = open_corpus(str(write_corpus(tmp_path / "other", documents=19)))
    assert open_corpus(str(corpus)).hash == same.hash != other.hash
    # Without a manifest the bytes themselves are hashed, to the same value.
    assert open_corpus(str(same.folder / "shards")).listed == same.listed
    (same.folder / "manifest.json").unlink()
    bare = open_corpus(str(same.folder / "shards"), tmp_path / "cache")
    assert bare.hash == same.hash and bare.listed is None and len(bare) == 20
    with pytest.raises(UserError, match=r"has no manifest\.json"):
        open_corpus(str(same.folder))
    with pytest.raises(UserError, match=r"has no manifest\.json"):
        open_corpus(str(tmp_path / "same"))


def test_the_manifest_says_which_shards_there_are(tmp_path: Path) -> None:
    out = write_corpus(tmp_path / "out", held_out=0)
    opened = open_corpus(str(out))
    first, second = opened.shards
    # A shard of another build beside them is not read.
    first.with_name("train-00009-of-00010.arrow").write_bytes(first.read_bytes())
    assert open_corpus(str(out)).shards == [first, second] and open_corpus(str(out)).hash == opened.hash
    content = second.read_bytes()
    second.write_bytes(content[:-1])
    with pytest.raises(UserError, match=rf"{second.name} has {len(content) - 1} bytes where .* lists {len(content)}"):
        open_corpus(str(out))
    second.unlink()
    with pytest.raises(UserError, match=rf"{second.name} is missing"):
        open_corpus(str(out))
    manifest = opened.folder / "manifest.json"
    manifest.write_text(manifest.read_text(encoding="utf-8").replace(f"shards/{second.name}", "../elsewhere"))
    with pytest.raises(UserError, match="outside its folder"):
        open_corpus(str(out))
    manifest.write_text("{}", encoding="utf-8")
    with pytest.raises(UserError, match="is not the manifest of a corpus version"):
        open_corpus(str(out))


def test_a_manifest_of_version_1_is_read(tmp_path: Path) -> None:
    """As an earlier release wrote it: with its phases' keys, and its own names of shards."""
    out = write_corpus(tmp_path / "out")
    opened = open_corpus(str(out))
    manifest = opened.folder / "manifest.json"
    said = json.loads(manifest.read_text(encoding="utf-8"))
    said |= {"manifest_version": 1, "phases": {"pages": "0" * 32}}
    for listed in said["shards"]:
        old = listed["name"]
        split, number = Path(old).stem.split("-")[:2]
        listed["name"] = f"shards/{split}-{number}-00000.arrow"
        (opened.folder / old).rename(opened.folder / listed["name"])
    manifest.write_text(json.dumps(said), encoding="utf-8")
    again = open_corpus(str(out))
    check_shards(again, tmp_path / "cache", ALONE)
    assert [path.name for path in again.shards] == [
        f"{split}-{number:05d}-00000.arrow" for split in ("train", "held_out") for number in range(2)
    ]
    assert again.listed == opened.listed and len(again) == len(opened) == 20
    assert again.document(7).document_id == opened.document(7).document_id
    said["manifest_version"] = 3
    manifest.write_text(json.dumps(said), encoding="utf-8")
    with pytest.raises(UserError, match="manifest version 3, and this program reads version 2"):
        open_corpus(str(out))


def test_shards_are_compared_with_the_manifest_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    opened = open_corpus(str(write_corpus(tmp_path / "out")))
    read: list[str] = []

    def counted(path: Path) -> str:
        read.append(path.name)
        return file_digest(path)

    monkeypatch.setattr("trainer.data.corpus.file_digest", counted)
    for _ in range(2):
        check_shards(opened, tmp_path / "cache", ALONE)
    assert read == [path.name for path in opened.shards]
    # One bit, the size unchanged.
    damaged = opened.shards[1]
    content = bytearray(damaged.read_bytes())
    content[len(content) // 2] ^= 1
    damaged.write_bytes(content)
    for _ in range(2):
        with pytest.raises(UserError, match=rf"{damaged.name}: its bytes are not those that .*manifest\.json lists"):
            check_shards(opened, tmp_path / "cache", ALONE)
    assert read[len(opened.shards) :] == [damaged.name]


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


def test_rows_are_cached_under_their_key(
    corpus: Path, vocabulary: Vocabulary, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("trainer.data.rows.PART", 8)
    opened = open_corpus(str(corpus))
    limits = Limits(160, 4, "bytes")
    rows = load_rows(opened, vocabulary, limits, tmp_path, ALONE)
    assert rows == build_rows(opened, vocabulary, limits)
    (folder,) = tmp_path.iterdir()
    parts = sorted(folder.iterdir())
    assert len(parts) == 3  # of 20 documents
    before = [path.stat().st_mtime_ns for path in parts]
    parts[0].write_text("damaged", encoding="utf-8")
    parts[1].unlink()
    assert load_rows(opened, vocabulary, limits, tmp_path, ALONE) == rows
    after = [path.stat().st_mtime_ns for path in parts]
    assert [a == b for a, b in zip(before, after, strict=True)] == [False, False, True]
    assert limits.key(opened) != replace(limits, document_tokens=80).key(opened)
    assert any(row.pairs for row in rows) and any(row.negatives for row in rows)


@pytest.mark.slow
def test_corrupt_label_vectors_are_left_out_and_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = write_corpus(tmp_path / "corpus", documents=8, held_out=2, corrupt=1)
    opened = open_corpus(str(out))
    found = opened.document(0)
    assert found.vectors("primary")[0] is None and found.vectors("shared")[1] is None
    assert found.vectors("primary")[2] is not None and found.has_vectors[:3] == [False, False, True]
    steps = ("optimizer.steps=2", "evaluation.tokens=1")
    outcome = train_here(tiny(out, tmp_path / "run", *steps), "auto", False)
    assert outcome.last["skipped"] == 0 and math.isfinite(outcome.last["structure"])
    said = capsys.readouterr().err
    where = f"train-00000-of-00002.arrow, document {found.document_id}, slice"
    assert f"{where} 0: its primary vector is not finite" in said
    assert f"{where} 1: its shared vector has norm 2, not 1" in said
    # The lines are kept with the rows; with `strict` the first ends the run.
    with pytest.raises(CorruptRecordError, match=f"{where} 0"):
        train_here(tiny(out, tmp_path / "run", *steps, "data.strict=true"), "none", False)


class _Stopped(Exception):
    pass


def test_features_go_on_with_the_parts_that_are_there(
    corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("trainer.data.features.PART", 10)
    opened = open_corpus(str(corpus))
    images = opened.distinct_images()
    shown = {
        found.image_hash(image)
        for found in map(opened.document, range(len(opened)))
        for image in (found.image_of(i) for i, piece in enumerate(found.slices) if piece.is_image)
    }
    assert {name for name, _, _ in images} == shown and len(images) == len(shown)
    torch.manual_seed(0)
    tower = Patches(32)
    seen: list[int] = []

    def counted(pixels: torch.Tensor) -> torch.Tensor:
        if sum(seen) >= 25:
            raise _Stopped
        seen.append(len(pixels))
        result: torch.Tensor = tower(pixels)
        return result

    source, device = PixelSource(32, strict=True), torch.device("cpu")
    with pytest.raises(_Stopped):
        build_features(tmp_path, opened, counted, source, device, ALONE)
    kept = sorted(path.name for path in tmp_path.glob("part-*"))
    assert kept == ["part-00000.arrow", "part-00001.arrow"]
    seen.clear()
    parts = build_features(tmp_path, opened, tower, source, device, ALONE)
    assert parts == -(-len(images) // 10)
    (tmp_path / "part-00001.arrow").write_bytes((tmp_path / "part-00001.arrow").read_bytes()[:-9])
    assert build_features(tmp_path, opened, counted, source, device, ALONE) == parts
    assert sum(seen) == 10  # the damaged part alone
    features = pickle.loads(pickle.dumps(FeatureSource(tmp_path, parts, strict=True)))
    for name, index, image in images:
        found, problem = features.image(opened.document(index), image)
        pixels, _ = source.image(opened.document(index), image)
        assert problem is None and torch.equal(found, tower(pixels[None])[0].detach().half().float()), name


def test_the_feature_key_follows_the_weights(corpus: Path, tmp_path: Path) -> None:
    """The same recipe but for the decoder's width draws another tower from the same seed."""
    opened = open_corpus(str(corpus))
    folders, towers = [], []
    for width in (48, 64, 48):
        tower = build_model(tiny(corpus, tmp_path, f"model.text.hidden_size={width}").model, 0).model.vision
        towers.append(tower.project.weight)
        folders.append(feature_folder(tmp_path, opened, weights_key(tower.state_dict()), 32))
    assert torch.equal(towers[0], towers[2]) and not torch.equal(towers[0], towers[1])
    assert folders[0] == folders[2] != folders[1]


def test_an_unreadable_image_is_named(corpus: Path) -> None:
    found = open_corpus(str(corpus)).document(0)
    good = PixelSource(32, strict=False).image(found, 0)
    assert good[0].shape == (3, 32, 32) and good[1] is None
    broken = found.image_bytes(0)[:200]
    with pytest.raises(CorruptRecordError, match="here: "):
        decode(broken, 32, "here")
