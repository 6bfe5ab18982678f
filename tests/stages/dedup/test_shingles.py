"""Signatures of the compiled code against datasketch, on the same shingles with our hash; words as everywhere else."""

from __future__ import annotations

import random
import subprocess
import sys

import numpy as np
import pyarrow as pa
import pytest
from datasketch import MinHash
from hypothesis import example, given, settings
from hypothesis import strategies as st

from stages.dedup import shingles as module
from stages.dedup.shingles import hash_sets, shingle_hash, shingles, signatures

# Letters that fold to others, to more or fewer bytes, or not at all; joints; marks; scripts without spaces; emoji.
ALPHABET = (
    "abzABZ019_'\u2019 .,-\u00e9\u00c9\u00df\u1e9e\u0130\u0131\u03c3\u03c2\u03a3\u01c5\ufb01\u212a\u0301"
    "\u0903\u200d\u00a0\u3000\n\u6211\u7684\u30fc\u3005\u3007\uff71\u0e01\u0e47\u1780\u1798\U0001f600\U00020000\U00010400"
)
SENTENCES = [
    "Die Katze sitzt auf der Matte, und die Maus läuft über die Straße nach Hause.",
    "L’été dernier, nous sommes allés au bord de la mer pour voir les bateaux.",
    "Все счастливые семьи похожи друг на друга",
    "ΕΖΗΣ και ΜΕΤΑ τον λόγον τους",
    "我们去公园看花，然后回家吃饭。Python 3.11 很好用",
    "東京は日本の首都です。コンピューターの説明書",
    "ภาษาไทยเป็นภาษาที่ไม่เว้นวรรค",
    "हिन्दी भारत की एक भाषा है और लिपि",
    "اللغة العربية من أكثر اللغات انتشارا",
]


def datasketch(text: str, num_words: int, num_perm: int, seed: int) -> list[int]:
    minhash = MinHash(num_perm=num_perm, seed=seed, hashfunc=shingle_hash, scheme="affine32")
    minhash.update_batch(shingles(text, num_words))
    return list(minhash.hashvalues.tolist())


def same_as_datasketch(texts: list[str], num_words: int = 5, num_perm: int = 112, seed: int = 1) -> bool:
    found, there = signatures(pa.array(texts, pa.string()), num_words, num_perm, seed)
    assert found.dtype == np.uint32 and found.shape == (len(texts), num_perm)
    assert there.tolist() == [bool(shingles(text, num_words)) for text in texts]
    return found.tolist() == [datasketch(text, num_words, num_perm, seed) for text in texts]


@settings(max_examples=150, derandomize=True, deadline=None)
@given(
    st.lists(st.one_of(st.text(ALPHABET, max_size=80), st.text(max_size=80)), max_size=4),
    st.integers(1, 7),
    st.sampled_from([1, 8, 112, 113]),
    st.integers(0, 2**32 - 1),
)
@example(["a" * 8, "a" * 9, "a" * 16, "a" * 17, "a" * 24, "a'" * 20, "'a", "a''b"], 1, 8, 1)
def test_signatures_are_datasketchs_on_any_text(texts: list[str], num_words: int, num_perm: int, seed: int) -> None:
    assert same_as_datasketch(texts, num_words, num_perm, seed)


def test_signatures_are_datasketchs_on_texts_of_many_languages() -> None:
    assert same_as_datasketch(SENTENCES)
    assert same_as_datasketch([" ".join(SENTENCES) * 20, "\n".join(reversed(SENTENCES))], num_perm=256, seed=7)


def test_every_character_folds_and_parts_words_as_in_python() -> None:
    points = [point for point in range(1, 0x110000) if not 0xD800 <= point < 0xE000]
    lines = [points[start : start + 997] for start in range(0, len(points), 997)]
    texts = ["".join(f"a{chr(point)}b " for point in line) for line in lines]
    chosen = random.Random(0).sample(texts, 80) + texts[:20]
    found = hash_sets(pa.array(chosen), 1)
    for text, hashes in zip(chosen, found, strict=True):
        assert {value & 0xFFFFFFFF for value in hashes.tolist()} == {shingle_hash(word) for word in shingles(text, 1)}


def test_shingles() -> None:
    assert shingles("A b c d e f", 5) == [b"a b c d e", b"b c d e f"]
    assert shingles("Too short", 5) == [b"too short"]
    assert shingles("... !", 5) == []
    assert shingles("\u6211\u4eec\u53bb\u516c\u56ed", 5) == ["\u6211 \u4eec \u53bb \u516c \u56ed".encode()]
    mixed = "Python \u5f88\u597d use"
    assert shingles(mixed, 2) == [each.encode() for each in ("python \u5f88", "\u5f88 \u597d", "\u597d use")]
    assert shingles("L\u2019\u00c9T\u00c9", 5) == shingles("l'\u00e9t\u00e9", 5) == ["l'\u00e9t\u00e9".encode()]


def test_signatures_are_the_same_however_texts_lie() -> None:
    texts = [*SENTENCES, None, "", *SENTENCES[::-1]]
    whole, there = signatures(pa.array(texts), 5, 112, 1)
    for kind in (pa.string(), pa.large_string()):
        pieces = pa.chunked_array([pa.array(texts[:3], kind), pa.array([], kind), pa.array(texts[3:], kind)])
        found, also = signatures(pieces, 5, 112, 1)
        assert np.array_equal(found, whole) and np.array_equal(also, there)
    sliced, _ = signatures(pa.array(texts).slice(4, 7), 5, 112, 1)
    assert np.array_equal(sliced, whole[4:11])
    alone = np.concatenate([signatures(pa.array([text], pa.string()), 5, 112, 1)[0] for text in texts])
    assert np.array_equal(alone, whole)
    assert there.tolist() == [text not in (None, "") for text in texts]
    none, nobody = signatures(pa.array([], pa.string()), 5, 112, 1)
    assert none.shape == (0, 112) and nobody.shape == (0,)


def test_a_text_that_is_too_long_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_MOST_BYTES", 10)
    with pytest.raises(ValueError, match="a text of 11 bytes: shingles are made of 2\\^30 at most"):
        signatures(pa.array(["eleven char"]), 5, 112, 1)


def test_hash_sets_are_distinct_and_ascending() -> None:
    (found, nothing) = hash_sets(pa.array(["one two three one two three one two", None]), 3)
    assert found.dtype == np.uint64 and len(found) == 3 and (np.diff(found.astype(object)) > 0).all()
    assert len(nothing) == 0


@pytest.mark.slow
def test_who_signs_nothing_imports_no_compiler() -> None:
    code = (
        "import sys, pipeline.phases.graph, stages.dedup.near, stages.dedup.similarity\n"
        "assert not {'numba', 'llvmlite', 'datasketch'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
