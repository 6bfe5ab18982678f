"""What the trainer takes for a shard: version 1 still, and nothing that is not what its schema says."""

from __future__ import annotations

import copy
import struct
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from schemas.shard import SHARD
from schemas.shard_file import ShardFile
from schemas.shard_v1 import SHARD_V1
from tests.trainer.conftest import ALONE, tiny
from tests.trainer.fabricated import DIMENSIONS, document, version_1, with_negatives, write_bare, write_corpus
from trainer.data.corpus import check_shards, open_corpus
from trainer.data.layout import PlainText, Vocabulary
from trainer.data.rows import Limits, build_rows
from trainer.data.shards import Document
from trainer.errors import UserError
from trainer.model.text import byte_tokenizer
from trainer.parallel.ray_launch import train_here

Row = dict[str, Any]


@pytest.fixture(scope="module")
def rows() -> list[Row]:
    """Documents of two or three pictures, in two batches of a shard."""
    return with_negatives([document(number, "train") for number in range(6)])


def refused(folder: Path) -> str:
    """The one line that opening a folder ends with."""
    with pytest.raises(UserError) as said:
        check_shards(open_corpus(str(folder)), folder / "cache", ALONE)
    assert "\n" not in str(said.value)
    return str(said.value)


def everything(found: Document) -> list[Any]:
    """All that a document says, but for what version 1 did not."""
    images = range(len(found._row.column("image_info").flatten()))
    return [
        (found.document_id, found.url, found.title, found.split, found.nodes, found.negatives, found.has_vectors),
        [(s.is_image, s.node, s.start, s.end, s.matched, s.similarity) for s in found.slices],
        [[None if v is None else v.tolist() for v in found.vectors(name)] for name in ("primary", "shared")],
        [(found.image_bytes(i), found.image_hash(i), found.image_field(i, "caption")) for i in images],
    ]


def test_version_1_gives_the_same_documents(rows: list[Row], tmp_path: Path) -> None:
    new = open_corpus(str(write_bare(tmp_path / "new", rows).parent))
    old = open_corpus(
        str(write_bare(tmp_path / "old", [version_1(row) for row in rows], "part-00000.arrow", SHARD_V1).parent)
    )
    for corpus in (new, old):
        check_shards(corpus, tmp_path / "cache", ALONE)
    assert len(new) == len(old) == len(rows)
    for index in range(len(new)):
        assert everything(old.document(index)) == everything(new.document(index))
    assert old.column("split") == new.column("split") and old.distinct_images() == new.distinct_images()
    assert {piece.match_kind for piece in new.document(0).slices} == {"similarity", None}
    assert {piece.match_kind for piece in old.document(0).slices} == {None}
    with pa.memory_map(str(old.shards[0])) as source:
        shard = ShardFile(source)
        table = shard.table()
        assert shard.version == 1 and table.schema.equals(SHARD, check_metadata=True)
        # Some rows of a batch are those rows of it.
        assert shard.batch(1, 1, 1).to_pylist() == table.slice(5, 1).to_pylist()


def test_negatives_that_training_has_no_use_for_are_said_in_one_line(
    rows: list[Row], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    empty = dict.fromkeys(("document_id", "candidate", "text", "score", "guard"))
    changed = copy.deepcopy(rows)
    wrong = {**empty, "slice": 2, "kind": "counterfactual", "direction": "image_to_sentence", "text": "A red horse."}
    changed[0]["negatives"] += [
        wrong,
        {**wrong, "slice": 0, "text": "No cat."},
        {**empty, "slice": 1, "kind": "later\n"},
    ]
    folder = write_bare(tmp_path / "shards", changed).parent
    corpus = open_corpus(str(folder))
    edges = corpus.document(0).negatives
    assert [edge.text for edge in edges] == [None, None, "A red horse.", "No cat.", None]
    limits = Limits(400, 4, "bytes")
    vocabulary = Vocabulary(PlainText(byte_tokenizer()), 256, 257, 4)
    usual = build_rows(open_corpus(str(write_bare(tmp_path / "usual", rows).parent)), vocabulary, limits)
    found = build_rows(corpus, vocabulary, limits)
    assert [row.negatives for row in found] == [row.negatives for row in usual] and any(row.negatives for row in found)
    train_here(tiny(folder, tmp_path / "run", "optimizer.steps=1", "evaluation.tokens=1"), "auto", False)
    said = [line for line in capsys.readouterr().err.splitlines() if "left out" in line]
    assert said == [
        "3 negatives left out, as only mined ones are placed beside their anchors: 'counterfactual' (2), 'later\\n' (1)"
    ]


def each(of: str, **values: Any) -> Callable[[Row], None]:
    def change(row: Row) -> None:
        for item in row[of]:
            item.update(values)

    return change


def images_of_nodes(row: Row) -> None:
    for node in row["nodes"]:
        if node["kind"] == "image":
            node["image"] = 77


def first_slice(**values: Any) -> Callable[[Row], None]:
    return lambda row: row["slices"][0].update(values)


def one(of: str, index: int, **values: Any) -> Callable[[Row], None]:
    return lambda row: row[of][index].update(values)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        pytest.param(each("slices", node=99999), r"slices\[0\] has node 99999, and .* has 5 nodes", id="node"),
        pytest.param(each("slices", node=-5), r"slices\[0\] has node -5", id="node-negative"),
        pytest.param(each("slices", node=None), r"slices\[0\] has node -1", id="node-null"),
        pytest.param(each("slices", matched=99999), r"slices\[0\] has match 99999", id="matched"),
        pytest.param(first_slice(matched=1), r"slices\[0\] is matched to slice 1, its like", id="matched-like"),
        pytest.param(images_of_nodes, r"nodes\[1\] has image 77, and its document has 2 images", id="image"),
        pytest.param(each("slices", end=2**31 - 1), r"slices\[0\] spans 0 to 2147483647 of \d+ char", id="end"),
        pytest.param(first_slice(start=9, end=3), r"slices\[0\] spans 9 to 3", id="span-backwards"),
        pytest.param(one("slices", 1, node=1), r"slices\[1\] is of node 1, no such kind", id="slice-of-image"),
        pytest.param(one("slices", 0, start=1, end=9, node=2), r"slices\[1\] is not in reading order", id="order"),
        pytest.param(each("nodes", kind="video"), r"nodes\[0\] is of kind 'video'", id="node-kind"),
        pytest.param(each("slices", kind="sound"), r"slices\[0\] is of kind 'sound'", id="slice-kind"),
        pytest.param(one("nodes", 0, text=None), r"nodes\[0\] is of kind text and has none", id="no-text"),
        pytest.param(each("images", bytes=None), r"images\[0\] has no bytes", id="no-bytes"),
        pytest.param(each("image_info", sha256=None), r"image_info\[0\] has no sha256", id="no-hash"),
        pytest.param(lambda row: row["image_info"].pop(), r"it has 2 images and 1 image_info", id="lists"),
        pytest.param(lambda row: row.update(images=None), r"column 'images' holds a null", id="no-images"),
        pytest.param(lambda row: row.update(split="zzz"), r"split is 'zzz'", id="split"),
        pytest.param(each("negatives", slice=99999), r"negatives\[0\] has slice 99999", id="negative-slice"),
        pytest.param(each("negatives", candidate=None), r"negatives\[0\] is mined and lacks", id="negative-mined"),
        pytest.param(each("negatives", kind="counterfactual"), r"negatives\[0\] is counterfactual", id="negative-text"),
        pytest.param(first_slice(primary=[1.0]), r"slices\[0\] has a primary vector of 1 numbers", id="width"),
        pytest.param(first_slice(shared=[None] * 12), r"slices\[0\] has a shared vector that holds a null", id="null"),
    ],
)  # fmt: skip
def test_rows_that_contradict_their_schema_are_named(
    change: Callable[[Row], None], said: str, rows: list[Row], tmp_path: Path
) -> None:
    changed = copy.deepcopy(rows)
    # Of the second batch, where a document is not the first of its file.
    change(changed[4])
    path = write_bare(tmp_path, changed)
    with pytest.raises(UserError, match=rf"^{path} is not a shard: .*{said}"):
        check_shards(open_corpus(str(tmp_path)), tmp_path / "cache", ALONE)
    if "column" not in said:
        assert f"document {changed[4]['document_id']!r}: " in refused(tmp_path)


def test_a_hostile_name_stays_on_its_line(rows: list[Row], tmp_path: Path) -> None:
    changed = copy.deepcopy(rows)
    changed[0].update(document_id="a\nb\x1b[31m" + "x" * 500, split="train\n")
    write_bare(tmp_path, changed)
    assert len(refused(tmp_path)) < len(str(tmp_path)) + 250


@pytest.mark.parametrize("column", ["nodes", "images", "image_info", "slices", "negatives"])
@pytest.mark.parametrize("offset", [2**30, -8])
def test_offsets_that_lead_out_of_the_file(column: str, offset: int, rows: list[Row], tmp_path: Path) -> None:
    path = write_bare(tmp_path, rows)
    content = bytearray(path.read_bytes())
    whole = pa.py_buffer(bytes(content))
    buffer = pa.ipc.open_file(whole).get_batch(0).column(column).buffers()[1]
    struct.pack_into("<ii", content, buffer.address - whole.address + 4, offset, offset + 5)
    path.write_bytes(content)
    assert f"{path} is not a shard: column {column!r}: " in refused(tmp_path)


def without(name: str) -> pa.Schema:
    return SHARD.remove(SHARD.get_field_index(name))


@pytest.mark.parametrize(
    ("schema", "said"),
    [
        pytest.param(without("negatives"), "column 'negatives' is missing", id="missing"),
        pytest.param(
            SHARD.set(SHARD.get_field_index("url"), pa.field("url", pa.int64())),
            "column 'url' is not of its type: pyarrow.Field<url: int64>",
            id="type",
        ),
        pytest.param(SHARD.append(pa.field("more", pa.int8())), "column 'more' is not in the contract", id="more"),
        pytest.param(SHARD.append(SHARD.field("url")), "column 'url' is there twice", id="twice"),
        pytest.param(pa.schema([*SHARD][::-1], SHARD.metadata), "its columns are in another order", id="order"),
        pytest.param(
            SHARD.with_metadata({b"interloom.schema": b"shard", b"interloom.version": b"9"}),
            "it is 'shard' version 9; this program reads shard versions 1 and 2",
            id="version",
        ),
        pytest.param(
            SHARD.with_metadata({b"interloom.schema": b"page", b"interloom.version": b"1"}), "it is 'page'", id="other"
        ),
        pytest.param(
            SHARD.with_metadata({b"interloom.schema": b"shard", b"interloom.version": b"two"}), "two", id="no-number"
        ),
    ],
)
def test_another_schema_is_refused_at_opening(schema: pa.Schema, said: str, tmp_path: Path) -> None:
    path = tmp_path / "train-00000-of-00001.arrow"
    with pa.ipc.new_file(str(path), schema):
        pass
    with pytest.raises(UserError, match="is not a shard: ") as refusal:
        open_corpus(str(tmp_path))
    assert said in str(refusal.value) and "\n" not in str(refusal.value)


def test_shards_of_other_encoders_do_not_belong_together(rows: list[Row], tmp_path: Path) -> None:
    write_bare(tmp_path, rows[:3])
    others = copy.deepcopy(rows[3:])
    for row in others:
        for piece in row["slices"]:
            if piece["kind"] == "image":
                piece["primary"] = [1.0, 0.0]
    write_bare(tmp_path, others, "train-00001-of-00002.arrow")
    width = DIMENSIONS["image"]
    assert refused(tmp_path).endswith(f"image primary vectors of 2 numbers, and others have {width}")


def test_a_shard_is_looked_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    looked: list[int] = []
    check = ShardFile.check

    def counted(self: ShardFile) -> Any:
        looked.append(1)
        return check(self)

    monkeypatch.setattr(ShardFile, "check", counted)
    out = write_corpus(tmp_path / "out")
    for _ in range(2):
        check_shards(open_corpus(str(out)), tmp_path / "cache", ALONE)
    assert len(looked) == len(open_corpus(str(out)).shards) == 4
    # The same bytes at another place, or touched, are the same shard.
    first = open_corpus(str(out)).shards[0]
    first.write_bytes(first.read_bytes())
    check_shards(open_corpus(str(out)), tmp_path / "cache", ALONE)
    assert len(looked) == 4


@pytest.mark.slow
def test_flipped_bits_never_abort(rows: list[Row], tmp_path: Path) -> None:
    """In a process of its own, which an abort would end; every flip is refused in one line or harmless."""
    write_bare(tmp_path / "new", rows[:3])
    write_bare(tmp_path / "old", [version_1(row) for row in rows[:3]], "part-00000.arrow", SHARD_V1)
    done = subprocess.run(
        [sys.executable, "-m", "tests.trainer.data.flips", str(tmp_path / "new"), str(tmp_path / "old")],
        cwd=Path(__file__).parents[3],
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    refusals, harmless = map(int, done.stdout.split())
    assert refusals + harmless == 240 and refusals > 40 and harmless > 40
