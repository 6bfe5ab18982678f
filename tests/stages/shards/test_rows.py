from __future__ import annotations

import io
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from pipeline.corpus.card import card
from schemas.contract import ContractError, identity
from schemas.shard import SHARD, SPLITS, shard_name, shard_order
from stages.shards.rows import ShardDocument, ShardSettings, row_bytes, shard_bytes, shard_table, write_shard
from stages.shards.slices import slices
from tests.pipeline.corpus.test_card import SUMMARY

JPEG = b"\xff\xd8\xff\xe0 not really \x00\xff"


def image(image_id: str, size: int) -> dict[str, Any]:
    return {
        "image_id": image_id, "url": f"http://h/{image_id}.jpg", "sha256": f"sha-{image_id}", "bytes": JPEG * size,
        "format": "jpeg", "width": 200, "height": 150, "original_width": 400, "original_height": 300,
        "phash": "0" * 16, "consent": None, "status": "ok", "exif_orientation": 6,
    }  # fmt: skip


def document(number: int, sentences: int = 2, images: int = 1) -> ShardDocument:
    text = " ".join(f"Sentence {number} {i}." for i in range(sentences))
    spans, start = [], 0
    for piece in [f"Sentence {number} {i}." for i in range(sentences)]:
        spans.append({"start": start, "end": start + len(piece)})
        start += len(piece) + 1
    nodes: list[dict[str, Any]] = [
        {"kind": "text", "tag": "p", "text": text, "separator": "\n\n", "image_id": None, "position": 0}
    ]
    for index in range(images):
        nodes.append(
            {"kind": "image", "tag": "img", "text": None, "separator": None, "image_id": f"i{number}-{index % 2}",
             "alt": f"alt {index}", "title": None, "caption": None, "position": 3 + index}
        )  # fmt: skip
    sequence = slices(nodes, [spans, *[None] * images], {f"i{number}-{k}": f"sha-i{number}-{k}" for k in (0, 1)})
    count = len(sequence)
    return ShardDocument(
        document_id=f"{number:032x}", url=f"http://h/{number}", title="<b>Title</b>", language="en", license=None,
        split="train", cluster_id=f"{number:032x}", nodes=nodes, slices=sequence,
        matched=[sentences if i == 0 and images else None for i in range(sentences)] + [0] * images if sentences
        else [None] * images,
        match_kind=["similarity"] * count if sentences and images else [None] * count,
        similarity=[0.25] * count if sentences and images else [None] * count,
        matrix=[[0.25, None][: max(sentences, 0)] + [0.0] * max(0, sentences - 2) for _ in range(images)],
        negatives=[{"slice": 0, "kind": "mined", "direction": "sentence_to_image", "document_id": "f" * 32,
                    "candidate": 2, "score": 0.5, "guard": None}],
        provenance={"kind": "site", "snapshot": "s", "file": None, "offset": None, "length": None},
        consent={"robots_allowed": True, "robots_source": None, "x_robots_tag": None, "agent": "a"},
    )  # fmt: skip


def build(documents: list[ShardDocument], size: int = 3) -> pa.Table:
    images = {
        node["image_id"]: image(node["image_id"], size) for d in documents for node in d.nodes if node["image_id"]
    }
    rng = np.random.default_rng(0)
    vectors: dict[str, Any] = {}
    for item in (item for d in documents for item in d.slices):
        dim = 12 if item.kind == "image" else 8
        vectors[item.content_id] = (rng.random(dim).astype(np.float16), rng.random(6).astype(np.float16))
    if documents:
        vectors[documents[0].slices[0].content_id] = (None, None)
    return shard_table(documents, images, vectors)


CORPUS = [document(n, sentences=1 + n % 5, images=n % 4) for n in range(23)]


def test_a_row_holds_everything_in_reading_order() -> None:
    row = build([document(1, sentences=2, images=3)]).to_pylist()[0]
    assert [node["image"] for node in row["nodes"]] == [None, 0, 1, 0]
    assert [node["position"] for node in row["nodes"]] == [0, 3, 4, 5]
    assert [(i["image_id"], i["alt"]) for i in row["image_info"]] == [("i1-0", "alt 0"), ("i1-1", "alt 1")]
    assert row["images"] == [{"bytes": JPEG * 3, "path": f"i1-{index}.jpeg"} for index in (0, 1)]
    assert [(s["kind"], s["node"]) for s in row["slices"]] == [("sentence", 0), ("sentence", 0)] + [
        ("image", node) for node in (1, 2, 3)
    ]
    first = row["slices"][0]
    assert row["nodes"][0]["text"][first["start"] : first["end"]] == "Sentence 1 0."
    assert first["primary"] is None and len(row["slices"][4]["primary"]) == 12 and len(row["slices"][4]["shared"]) == 6
    assert row["similarity_matrix"] == [[0.25, None]] * 3
    assert row["negatives"][0]["document_id"] == "f" * 32


@pytest.mark.slow
@settings(max_examples=12, deadline=None, derandomize=True)
@given(st.lists(st.integers(0, 22), max_size=4), st.integers(1, 9), st.sampled_from([1, 600, 1 << 20]))
def test_equal_rows_give_equal_bytes_however_they_lie_in_memory(edges: list[int], rows: int, size: int) -> None:
    options = ShardSettings(max_rows_per_batch=rows, max_batch_bytes=size)
    whole = build(CORPUS)
    bounds = sorted({0, *edges, len(whole)})
    pieces = [whole.slice(a, b - a) for a, b in pairwise(bounds)]
    # Also rows that were written and read in between, and rows cut out of a longer table.
    buffer = io.BytesIO()
    write_shard(pa.concat_tables([whole, whole]), buffer, options)
    again = pa.ipc.open_file(pa.BufferReader(buffer.getvalue())).read_all()
    expected = shard_bytes(whole, options)
    assert shard_bytes(pa.concat_tables(pieces), options) == expected
    assert shard_bytes(again.slice(len(whole)), options) == expected
    assert shard_bytes(build(CORPUS), options) == expected


def test_batches_keep_their_bounds() -> None:
    table = build(CORPUS, size=40)
    sizes = row_bytes(table)
    assert sizes.sum() > 23 * 40 * len(JPEG)
    bound = int(sizes.max())
    options = ShardSettings(max_rows_per_batch=4, max_batch_bytes=bound)
    # However the rows come.
    pieces = [table.slice(start, 5) for start in range(0, len(table), 5)]
    assert row_bytes(pa.concat_tables(pieces)).tolist() == sizes.tolist()
    with pa.ipc.open_file(pa.BufferReader(shard_bytes(table, options))) as reader:
        batches = [reader.get_batch(index) for index in range(reader.num_record_batches)]
    assert {batch.num_rows for batch in batches} <= {1, 2, 3, 4}
    assert all(row_bytes(pa.Table.from_batches([b])).sum() <= bound for b in batches if b.num_rows > 1)


@pytest.mark.parametrize("compression", ["none", "lz4", "zstd"])
def test_what_is_written_is_what_is_read(compression: str) -> None:
    table = build(CORPUS)
    data = shard_bytes(table, ShardSettings(compression=compression))
    read = pa.ipc.open_file(pa.BufferReader(data)).read_all()
    assert read.schema.equals(SHARD, check_metadata=True) and identity(read.schema) == ("shard", 2)
    assert read.equals(table)


def test_uncompressed_vectors_and_images_are_read_in_place(tmp_path: Path) -> None:
    path = tmp_path / "train-00000-of-00001.arrow"
    path.write_bytes(shard_bytes(build([document(n, images=1) for n in range(200)], size=500), ShardSettings()))
    with pa.memory_map(str(path)) as source:
        before = pa.total_allocated_bytes()
        table = pa.ipc.open_file(source).read_all()
        column = table.column("images").chunk(1)
        picture = column.flatten().field("bytes")[0].as_buffer()
        assert bytes(picture[:4]) == JPEG[:4]
        assert pa.total_allocated_bytes() - before < 100_000 < path.stat().st_size


def png(color: int) -> bytes:
    sink = io.BytesIO()
    Image.new("RGB", (5, 4), (color, 255 - color, 7)).save(sink, "PNG")
    return sink.getvalue()


def write_version(folder: Path, splits: dict[str, pa.Table]) -> None:
    """A version's folder as a build leaves it: shards of several batches, and the card."""
    (folder / "shards").mkdir(parents=True)
    for split, table in splits.items():
        pieces = [table.slice(start, 5) for start in range(0, len(table), 5)]
        for number, shard in enumerate(pieces):
            with (folder / "shards" / shard_name(split, number, len(pieces))).open("wb") as sink:
                write_shard(shard, sink, ShardSettings(max_rows_per_batch=2))
    summary = replace(SUMMARY, splits={split: len(table) for split, table in splits.items()})
    (folder / "README.md").write_text(card(summary))


@pytest.mark.parametrize("sides", [("train", "held_out"), ("train",), ("held_out",)])
def test_datasets_opens_the_version_with_its_splits_and_pictures(
    sides: tuple[str, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(datasets.config, "HF_DATASETS_OFFLINE", True)
    documents = {"train": CORPUS[:15], "held_out": CORPUS[15:]}
    tables = {}
    for split in sides:
        table = build([replace(each, split=split) for each in documents[split]])
        rows = table.to_pylist()
        for number, row in enumerate(rows):
            for place, picture in enumerate(row["images"]):
                picture["bytes"] = png(number * 9 + place)
        rows[0]["negatives"].append({"slice": 0, "kind": "counterfactual", "text": "No."})
        tables[split] = pa.Table.from_pylist(rows, schema=SHARD)
    write_version(tmp_path / "v", tables)
    loaded = datasets.load_dataset(str(tmp_path / "v"), cache_dir=str(tmp_path / "cache"))
    streamed = datasets.load_dataset(str(tmp_path / "v"), streaming=True)
    assert list(loaded) == list(streamed) == list(sides)
    for split, table in tables.items():
        assert len(list((tmp_path / "v" / "shards").glob(f"{split}-*.arrow"))) > 1
        for found in (list(loaded[split]), list(streamed[split])):
            assert len(found) == len(table)
            for ours, theirs in zip(table.to_pylist(), found, strict=True):
                pictures = ours.pop("images"), theirs.pop("images")
                assert theirs == ours
                for expected, picture in zip(*pictures, strict=True):
                    with Image.open(io.BytesIO(expected["bytes"])) as decoded:
                        assert (picture.size, picture.tobytes()) == (decoded.size, decoded.tobytes())
        assert loaded[split].cache_files and loaded[split].features["images"].feature == datasets.Image()


def test_names_of_shards_sort_like_their_keys() -> None:
    names = [shard_name(split, number, 100_000) for split in SPLITS for number in (0, 2, 9, 10, 12345, 99_999)]
    assert shard_name("train", 0, 2) == "train-00000-of-00002.arrow"
    assert len(set(names)) == len(names) and sorted(reversed(names), key=shard_order) == names
    assert sorted(["part-00000.arrow", "shards/x-0.arrow", *names], key=shard_order)[: len(names)] == names


def test_other_tables_are_refused() -> None:
    with pytest.raises(ContractError, match="column 'url' is missing"):
        shard_bytes(build(CORPUS).drop_columns(["url"]), ShardSettings())
    with pytest.raises(KeyError, match="i1-0"):
        shard_table([document(1)], {}, {})


def test_no_documents_make_an_empty_table() -> None:
    table = shard_table([], {}, {})
    assert table.schema.equals(SHARD) and len(table) == 0
    assert pa.ipc.open_file(pa.BufferReader(shard_bytes(table, ShardSettings()))).read_all().num_rows == 0


def test_a_document_without_text_or_without_images() -> None:
    bare = [document(1, sentences=0, images=2), document(2, sentences=3, images=0)]
    rows = build(bare).to_pylist()
    assert rows[0]["similarity_matrix"] == [[], []] and rows[1]["similarity_matrix"] == []
    assert rows[1]["images"] == []
    assert build([replace(bare[1], negatives=[])]).to_pylist()[0]["negatives"] == []
