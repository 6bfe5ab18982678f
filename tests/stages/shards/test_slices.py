import pytest
import xxhash

from stages.shards.slices import image_content_id, sentence_content_id, slices

NODES = [
    {"kind": "text", "text": "One. Two.", "image_id": None},
    {"kind": "image", "text": None, "image_id": "i1"},
    {"kind": "text", "text": "***", "image_id": None},
    {"kind": "image", "text": None, "image_id": "i2"},
    {"kind": "text", "text": "Two.", "image_id": None},
]
SPANS = [[{"start": 0, "end": 4}, {"start": 5, "end": 9}], None, [], None, [{"start": 0, "end": 4}]]


def test_slices_follow_reading_order_and_equal_contents_share_an_id() -> None:
    found = slices(NODES, SPANS, {"i1": "aa", "i2": "aa"})
    assert [(s.kind, s.node, s.start, s.end) for s in found] == [
        ("sentence", 0, 0, 4), ("sentence", 0, 5, 9), ("image", 1, 0, 0), ("image", 3, 0, 0), ("sentence", 4, 0, 4),
    ]  # fmt: skip
    assert found[1].content_id == found[4].content_id == sentence_content_id("Two.")
    assert found[2].content_id == found[3].content_id == image_content_id("aa")


def test_content_ids_keep_kinds_apart() -> None:
    assert sentence_content_id("aa") == xxhash.xxh3_128_hexdigest(b"sentence\0aa")
    assert image_content_id("aa") == xxhash.xxh3_128_hexdigest(b"image\0aa")


def test_an_image_without_bytes_is_named() -> None:
    with pytest.raises(KeyError, match="i2"):
        slices(NODES, SPANS, {"i1": "aa"})
