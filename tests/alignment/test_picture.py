"""The picture command on a small corpus written by the shard contract."""

import io
import sys

import numpy as np
import pyarrow as pa
import pytest
from PIL import Image

from benchmarks import alignment_picture
from schemas.shard import SHARD


def empty(kind):
    """A value that a field of this type accepts: nothing, at every level."""
    if pa.types.is_struct(kind):
        return {field.name: empty(field.type) for field in kind}
    return [] if pa.types.is_list(kind) else None


def shard_row(number, kinds, generator):
    nodes, images, slices = [], [], []
    for index, kind in enumerate(kinds):
        vector = generator.normal(size=(2, 6)).astype(np.float16)
        one = {"kind": kind, "node": index, "start": 0, "end": 0, "primary": vector[0], "shared": vector[1]}
        if kind == "image":
            data = io.BytesIO()
            Image.new("RGB", (80, 50), tuple(generator.integers(0, 255, 3).tolist())).save(data, "PNG")
            nodes.append({"kind": "image", "image": len(images)})
            images.append({"bytes": data.getvalue(), "path": f"{index}.png"})
        else:
            text = f"Sentence {index} of document {number}, rather long so that it must wrap at some place."
            nodes.append({"kind": "text", "text": text})
            one["end"] = len(text)
        slices.append(one)
    row = {field.name: empty(field.type) for field in SHARD}
    filled = {
        "document_id": f"d{number}",
        "url": f"https://example.org/{number}",
        "title": f"Title {number}",
        "split": "train",
        "cluster_id": f"c{number}",
        "nodes": nodes,
        "images": images,
        "slices": slices,
    }
    return {**row, **filled}


@pytest.fixture
def corpus(tmp_path):
    generator = np.random.default_rng(0)
    kinds = ["image", "sentence", "sentence", "image", "sentence", "sentence"]
    rows = [shard_row(number, [*kinds[number % 2 :], "sentence"], generator) for number in range(4)]
    folder = tmp_path / "versions" / "v1" / "shards"
    folder.mkdir(parents=True)
    (tmp_path / "latest").write_text("v1\n")
    table = pa.Table.from_pylist(rows, schema=SHARD)
    with pa.OSFile(str(folder / "train-00000-00000.arrow"), "wb") as sink, pa.ipc.new_file(sink, SHARD) as writer:
        writer.write_table(table)
    return tmp_path


def run(monkeypatch, *arguments):
    monkeypatch.setattr(sys, "argv", ["alignment_picture", *map(str, arguments)])
    alignment_picture.main()


def test_draws_the_most_alike_pair(corpus, tmp_path, monkeypatch):
    out = tmp_path / "images" / "picture.png"
    run(monkeypatch, "--corpus", corpus, "--out", out, "--slices", 6, 12)
    with Image.open(out) as picture:
        pixels = np.asarray(picture.convert("RGB"), dtype=int)
    first = pixels[alignment_picture.TOP + 4, alignment_picture.SIDE + 4]
    assert tuple(first) == alignment_picture.DEEP  # the first cell is visited for certain
    assert (pixels == alignment_picture.PAPER).all(-1).mean() < 0.95


def test_named_documents_and_errors(corpus, tmp_path, monkeypatch, capsys):
    run(monkeypatch, "--corpus", corpus, "--out", tmp_path / "two.png", "--documents", "d0", "d2")
    assert "d0 and d2" in capsys.readouterr().out
    for arguments in (["--documents", "d0", "nobody"], ["--slices", "50", "60"]):
        with pytest.raises(SystemExit) as stopped:
            run(monkeypatch, "--corpus", corpus, "--out", tmp_path / "none.png", *arguments)
        assert stopped.value.code == 2
    with pytest.raises(SystemExit):
        run(monkeypatch, "--corpus", tmp_path / "images", "--out", tmp_path / "none.png")
