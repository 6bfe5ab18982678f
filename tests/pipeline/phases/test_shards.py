"""Shards: how many a split has follows its bytes, and which documents lie in which follows their ids."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import pairwise
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from pipeline.corpus.version import Corpus
from pipeline.engine.key_range import SPACE, WHOLE, KeyRange
from pipeline.engine.layout import version_folder, version_of
from pipeline.engine.phase import Part
from pipeline.engine.table import Table, read_record
from pipeline.phases.pairs import STORED_BYTES, pairs
from pipeline.phases.shards import SHARD_ROW, shards
from pipeline.spec.loading import Spec, parse
from schemas.contract import conform, table_from_rows
from schemas.digests import bucket_digests, table_digest
from schemas.embedding import VECTOR
from schemas.image import IMAGE
from schemas.shard import SPLITS, shard_name
from schemas.tables import EMBEDDED, KEPT, PAIRED, SLICED
from tests.pipeline.small_corpus import SPEC, document_id, image_rows, put, shard_documents, write

TARGET = 1 << 10
KEY = "abcdef0123456789" * 2


def spec_of(*overrides: str) -> Spec:
    return parse("small", SPEC, [f"shard.target_bytes={TARGET}", *overrides])


def laid_out(train: int, held_out: int) -> list[KeyRange]:
    layout = shards(spec_of()).layout
    assert layout is not None
    stored = {f"{STORED_BYTES}.train": train, f"{STORED_BYTES}.held_out": held_out}
    return list(layout({"pairs": {name: size for name, size in stored.items() if size}}))


@pytest.mark.parametrize(
    ("train", "held_out", "counts"),
    [
        (1, 1, (1, 1)),
        (TARGET, TARGET + 1, (1, 2)),
        (5 * TARGET, 0, (5, 0)),
        (0, 3 * TARGET - 1, (0, 3)),
        (1 << 40, 1, (1 << 16, 1)),
    ],
)
def test_a_split_has_as_few_shards_as_its_bytes_ask_for(train: int, held_out: int, counts: tuple[int, int]) -> None:
    ranges = laid_out(train, held_out)
    for split, count in zip(SPLITS, counts, strict=True):
        mine = [keys for keys in ranges if keys.side == split]
        assert len(mine) == count
        if mine:
            assert mine[0].first == 0 and mine[-1].last == SPACE - 1
            assert all(one.last + 1 == other.first for one, other in pairwise(mine))
            sizes = {keys.last - keys.first + 1 for keys in mine}
            assert max(sizes) - min(sizes) <= SPACE >> 16, "as equal as buckets allow"


def test_where_no_document_is_left_there_is_a_table_with_no_rows() -> None:
    assert laid_out(0, 0) == [KeyRange(0, SPACE - 1, "train")]


def facts(corpus: Corpus) -> list[dict[str, Any]]:
    return [{name: row.get(name) for name in IMAGE.names} for row in image_rows(corpus.storage)]


def kept_rows(corpus: Corpus) -> list[dict[str, Any]]:
    """The kept documents, with the facts of their images."""
    rows = corpus.rows("kept").to_pylist()
    for row in rows:
        shown = {node["image_id"] for node in row["nodes"] if node["kind"] == "image"}
        row["images"] = [each for each in facts(corpus) if each["image_id"] in shown]
        row["provenance"] = {"kind": "site", "snapshot": "one"}
    return rows


def tables(corpus: Corpus, sides: Mapping[str, str], counts: dict[str, int]) -> dict[str, Table]:
    """Inputs of the phase: documents on these sides, whose bytes are said to be those."""
    storage = corpus.storage
    paired = [{**row, "split": sides[row["document_id"]]} for row in corpus.rows("pairs").to_pylist()]
    named = {
        "negatives": corpus.manifest.phases["negatives"],
        "kept": put(storage, "kept", "b" * 32, KEPT, kept_rows(corpus), [], {}),
        "pairs": put(storage, "pairs", "c" * 32, PAIRED, paired, [], counts),
    }
    found = {}
    for phase, name in named.items():
        record = read_record(storage, name)
        assert record is not None
        found[phase] = Table(storage, record)
    return found


@pytest.mark.parametrize("count", [1, 2, 7])
def test_a_shard_holds_the_documents_of_its_range_and_of_its_split(tmp_path: Path, count: int) -> None:
    corpus = write(str(tmp_path))
    sides = {document_id("/cats"): "train", document_id("/dogs"): "held_out"}
    counts = {f"{STORED_BYTES}.train": count * TARGET, f"{STORED_BYTES}.held_out": 1}
    inputs = tables(corpus, sides, counts)
    phase = shards(spec_of())
    assert phase.layout is not None
    ranges = phase.layout({name: table.record.counts for name, table in inputs.items()})
    folder = version_folder(version_of(KEY))
    names, rows, summed = [], [], {"documents": 0, "held_out": 0, "images": 0}
    for keys in ranges:
        part = Part("shards", KEY, keys, corpus.storage, inputs)
        made = conform(phase.run(part, None), SHARD_ROW)
        (file,) = part.files
        stored = pa.ipc.open_file(pa.BufferReader(file.data)).read_all()
        assert file.rows == len(stored) == len(made)
        assert stored.column("document_id").to_pylist() == made.column("document_id").to_pylist()
        for place, row in enumerate(made.to_pylist()):
            assert keys.first <= int(row["document_id"][:8], 16) <= keys.last
            assert row["split"] == keys.side == sides[row["document_id"]]
            assert f"{folder}/{row['file']}" == file.name and row["row"] == place
        summed = {name: number + part.counts[name] for name, number in summed.items()}
        names.append(file.name)
        rows.append(made)
    wanted = [f"{folder}/shards/{shard_name('train', number, count)}" for number in range(count)]
    assert names == [*wanted, f"{folder}/shards/held_out-00000-of-00001.arrow"]
    everything = pa.concat_tables(rows)
    assert sorted(everything.column("document_id").to_pylist()) == sorted(sides)
    assert summed == {"documents": 2, "held_out": 1, "images": 3}
    # Where a document lies is carried: the table says the same however it is cut.
    whole = everything.sort_by("document_id")
    assert table_digest(SHARD_ROW, [bucket_digests(whole)]) == table_digest(SHARD_ROW, map(bucket_digests, rows))


def test_bytes_are_counted_by_split_and_each_picture_of_a_document_once(tmp_path: Path) -> None:
    corpus = write(str(tmp_path))
    documents = {each.document_id: each for each in shard_documents()}
    cats, dogs = (document_id(path) for path in ("/cats", "/dogs"))
    sides = {cats: "train", dogs: "held_out"}
    kept = kept_rows(corpus)
    for row in kept:
        row["split"] = sides[row["document_id"]]
        if row["document_id"] == dogs:  # the same picture twice
            picture = next(node for node in row["nodes"] if node["kind"] == "image")
            row["nodes"] = [{**picture} if node["kind"] == "image" else node for node in row["nodes"]]
    names = {"kept": put(corpus.storage, "kept", "b" * 32, KEPT, kept, [], {})}
    sliced, embedded = [], {}
    for each in documents.values():
        sliced.append(
            {
                "document_id": each.document_id,
                "kinds": [item.kind for item in each.slices],
                "nodes": [item.node for item in each.slices],
                "starts": [item.start for item in each.slices],
                "ends": [item.end for item in each.slices],
                "content_ids": [item.content_id for item in each.slices],
            }
        )
        for item in each.slices:
            width = 6 if item.kind == "image" else 4
            embedded[item.content_id, each.document_id] = {
                "document_id": each.document_id,
                "content_id": item.content_id,
                "primary": [0.5] * width,
                "shared": [0.5] * 4,
            }
    names["slices"] = put(corpus.storage, "slices", "d" * 32, SLICED, sliced, [], {})
    names["embeddings"] = put(corpus.storage, "embeddings", "f" * 32, EMBEDDED, [], [], {})
    inputs = {}
    for phase, name in names.items():
        record = read_record(corpus.storage, name)
        assert record is not None
        inputs[phase] = Table(corpus.storage, record)
    part = Part("pairs", KEY, WHOLE, corpus.storage, inputs)
    fields = [("document_id", pa.string()), ("content_id", pa.string()), ("primary", VECTOR), ("shared", VECTOR)]
    ordered = [embedded[key] for key in sorted(embedded, key=lambda each: (each[1], each[0]))]
    rows = table_from_rows(ordered, pa.schema(fields))
    made = pairs(spec_of()).run(part, rows)
    assert made.num_rows == sum(len(each["kinds"]) for each in sliced)
    for document in kept:
        mine = [row for row in made.to_pylist() if row["document_id"] == document["document_id"]]
        words = sum(len(node["text"].encode()) for node in document["nodes"] if node["kind"] == "text")
        shown = {node["image_id"] for node in document["nodes"] if node["kind"] == "image"}
        bytes_of = {each["image_id"]: each["body"]["length"] for each in document["images"]}
        vectors = sum(2 * (len(row["primary"]) + len(row["shared"])) for row in mine)
        expected = words + sum(bytes_of[each] for each in shown) + vectors
        assert part.counts[f"{STORED_BYTES}.{sides[document['document_id']]}"] == expected
