import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import linear_sum_assignment

from stages.encoders.cosine import cosines, from_column, row_cosines, stack
from stages.pairing.page import Standing
from stages.pairing.pair import PairSettings, match_kinds, measure, pair
from stages.shards.rows import vector_array

MMC4 = PairSettings(strategy="mmc4", min_similarity=None)


def unit(rng: np.random.Generator, count: int, dim: int = 16) -> np.ndarray:
    vectors = rng.standard_normal((count, dim))
    return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float16)


def at(cosine: float, axis: int = 1) -> np.ndarray:
    """A unit vector with the given cosine to the first axis."""
    vector = np.zeros(4, dtype=np.float16)
    vector[0], vector[axis] = cosine, (1 - cosine**2) ** 0.5
    return vector


@settings(max_examples=60, deadline=None, derandomize=True)
@given(st.integers(0, 6), st.integers(0, 8), st.integers(0, 1000))
def test_assignment_is_optimal_and_distinct(images: int, sentences: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    kinds = ["image"] * images + ["sentence"] * sentences
    rng.shuffle(kinds)
    vectors = unit(rng, len(kinds))
    result = pair(kinds, list(vectors), MMC4)
    rows = [i for i, kind in enumerate(kinds) if kind == "image"]
    columns = [i for i, kind in enumerate(kinds) if kind == "sentence"]
    exact = vectors[rows].astype(np.float64) @ vectors[columns].astype(np.float64).T
    assert np.array_equal(result.matrix, exact.astype(np.float32))
    matches = {image: result.matched[image] for image in rows if result.matched[image] is not None}
    if sentences == 0:
        assert not matches
        return
    assert len(matches) == images
    if images <= sentences:
        assert len(set(matches.values())) == images
        best = exact[linear_sum_assignment(exact, maximize=True)].sum()
        assert sum(result.similarity[i] or 0 for i in rows) == pytest.approx(best, abs=1e-5)
    else:
        # MMC4: as many distinct sentences as there are, and the rest of the images take their best sentence.
        assert set(matches.values()) == set(columns)
    for image, sentence in matches.items():
        assert result.similarity[image] == np.float32(exact[rows.index(image), columns.index(sentence)])


def test_left_over_images_take_their_best_sentence_and_it_points_to_the_most_similar() -> None:
    kinds = ["image", "image", "sentence"]
    result = pair(kinds, [at(0.6), at(0.8), at(1.0)], MMC4)
    assert result.matched == (2, 2, 1)
    assert result.similarity == pytest.approx((0.6, 0.8, 0.8), abs=1e-3)


def test_images_like_no_sentence_leave_before_the_assignment() -> None:
    kinds = ["image", "sentence", "image", "sentence"]
    # The weak image would take the only sentence that the strong one fits second best.
    vectors = [at(0.1), at(1.0), at(0.9), at(0.0, axis=2)]
    result = pair(kinds, vectors, PairSettings(strategy="mmc4", min_similarity=0.15))
    assert [(d.slice, d.rule, d.low) for d in result.dropped] == [(0, "similarity", 0.15)]
    assert result.dropped[0].value == pytest.approx(0.1, abs=1e-3)
    assert result.kept == (1, 2, 3)
    assert result.matched == (1, 0, None)
    assert result.matrix.shape == (1, 2)
    assert pair(kinds, vectors, MMC4).dropped == ()


def test_slices_without_vectors_are_unmatched_and_kept() -> None:
    kinds = ["image", "sentence", "image", "sentence"]
    result = pair(kinds, [None, at(1.0), at(0.9), None], PairSettings(strategy="mmc4", min_similarity=0.15))
    assert result.kept == (0, 1, 2, 3)
    assert result.matched == (None, 2, 1, None)
    assert result.matrix_rows() == [[None, None], [pytest.approx(0.9, abs=1e-3), None]]
    broken = at(0.9)
    broken[0] = np.nan
    assert pair(kinds, [None, at(1.0), broken, None], MMC4).matched == (None, None, None, None)


def test_reading_order_takes_the_stated_side_and_falls_back_to_the_other() -> None:
    kinds = ["sentence", "image", "image", "sentence", "image"]
    vectors = [at(1.0), at(0.5), at(0.4), at(0.9), at(0.3)]
    after = pair(kinds, vectors, PairSettings(strategy="dom", min_similarity=None))
    assert after.matched == (None, 3, 3, 2, 3)  # both neighbours are one slice away: the first image wins
    before = pair(kinds, vectors, PairSettings(strategy="dom", min_similarity=None, dom_side="before"))
    assert before.matched == (1, 0, 0, 4, 3)
    assert before.similarity[1] == pytest.approx(0.5, abs=1e-3)
    blind = pair(kinds, [None] * 5, PairSettings(strategy="dom"))
    assert blind.matched[1] == 3 and blind.similarity[1] is None


def test_cosines_are_exact_whatever_the_shape_of_the_batch() -> None:
    rng = np.random.default_rng(0)
    a, b = unit(rng, 33, 768), unit(rng, 47, 768)
    whole = cosines(a, b)
    for i, j in itertools.product(range(0, 33, 8), range(0, 47, 6)):
        assert whole[i, j] == cosines(a[i : i + 1], b[j : j + 1])[0, 0] == row_cosines(a[i : i + 1], b[j : j + 1])[0]
    permutation = rng.permutation(768)
    assert np.array_equal(whole, cosines(a[:, permutation], b[:, permutation]))


def test_vectors_come_back_from_columns_and_bad_ones_are_refused() -> None:
    rng = np.random.default_rng(0)
    vectors = [None, *unit(rng, 3, 8), None]
    matrix, usable = from_column(vector_array(vectors))
    stacked, same = stack(vectors)
    assert np.array_equal(matrix, stacked) and usable.tolist() == same.tolist() == [False, True, True, True, False]
    assert from_column(vector_array(vectors).slice(1, 2))[0].tolist() == [v.tolist() for v in vectors[1:3]]
    assert from_column(vector_array([None]))[0].shape == (1, 0)
    with pytest.raises(ValueError, match="different lengths"):
        from_column(vector_array([np.ones(2, np.float16), np.ones(4, np.float16)]))
    with pytest.raises(ValueError, match="shapes"):
        stack([np.ones(2), np.ones(3)])
    with pytest.raises(ValueError, match="norm"):
        stack([np.full(8, 3.0)])


def test_a_match_is_markup_where_the_page_says_so() -> None:
    def text(words: str, tag: str = "p") -> dict[str, str | None]:
        return {"kind": "text", "tag": tag, "text": words, "caption": None}

    image = {"kind": "image", "tag": "img", "text": None, "caption": "A cat. On  a\nmat. From 1902."}
    bare = {**image, "caption": None}
    nodes = [
        image, text("A cat. On a mat.", "figcaption"),  # one of two paragraphs of its caption
        image, text("A cat. On a mat. From 1902."),  # all of it, whatever the element
        image, text("On a mat."),  # words of it, in the text
        image, text("A cat. On a", "figcaption"), image, text("n a mat.", "figcaption"),  # the second: another's
        bare, text("A cat.", "figcaption"), image, text(" ", "figcaption"),
        image, text("Alone."),
    ]  # fmt: skip
    matched = [index ^ 1 if index < len(nodes) - 2 else None for index in range(len(nodes))]
    expected = ["markup", "markup", "similarity", "markup", "similarity", "similarity", "similarity"]
    standing = [Standing(index, node, node["text"] or "") for index, node in enumerate(nodes)]
    assert match_kinds(matched, standing, MMC4)[::2] == [*expected, None]
    assert match_kinds(matched, standing, MMC4)[1::2] == [*expected, None]
    ordered = match_kinds(matched, standing, PairSettings(strategy="dom"))
    assert [kind for kind in ordered if kind != "markup"] == ["order"] * 8 + [None] * 2


def page(*nodes: tuple[str, str, str | None]) -> list[Standing]:
    """Nodes of (tag, text, caption), a slice each; those tagged img are images."""
    return [
        Standing(
            index,
            {"kind": "image" if tag == "img" else "text", "tag": tag, "text": text or None, "caption": caption},
            text,
        )
        for index, (tag, text, caption) in enumerate(nodes)
    ]


def kinds_of(standing: list[Standing]) -> list[str]:
    return ["image" if each.content["kind"] == "image" else "sentence" for each in standing]


PAGE = PairSettings(strategy="page")


def test_a_caption_is_its_pictures_match_whatever_the_cosines_say() -> None:
    standing = page(
        ("p", "Cats sleep.", None), ("img", "", "A cat."), ("figcaption", "A cat.", None), ("p", "Dogs bark.", None),
        ("img", "", None), ("p", "More of cats.", None),
    )  # fmt: skip
    vectors = [at(1.0), at(1.0), at(0.0), at(0.2), at(1.0), at(0.7)]
    found = pair(kinds_of(standing), vectors, PAGE, standing)
    # the second image may not take the first one's caption, nor be kept from a sentence by it
    assert found.matched == (4, 2, 1, None, 0, None)
    assert found.similarity[1] == pytest.approx(0.0, abs=1e-3)
    how = match_kinds(found.matched, standing, PAGE)
    assert how == ["similarity", "markup", "markup", None, "similarity", None]
    blind = pair(kinds_of(standing), [None] * 6, PAGE, standing)
    assert blind.matched == (None, 2, 1, None, None, None) and blind.similarity == (None,) * 6
    assert pair(kinds_of(standing), vectors, MMC4, standing).matched[1] in (0, 5)


def test_of_captions_that_stand_twice_the_closer_one_counts() -> None:
    standing = page(
        ("figcaption", "A cat.", None), ("p", "Between.", None), ("img", "", "A cat."), ("figcaption", "A cat.", None),
        ("p", "Between.", None), ("img", "", "A cat."), ("p", "A cat.", None),
    )  # fmt: skip
    found = pair(kinds_of(standing), [at(0.5)] * 7, PAGE, standing)
    assert found.matched[2] == 3 and found.matched[5] == 6


def test_a_sentence_that_names_the_figure_is_preferred() -> None:
    standing = page(
        ("img", "", "Figure 7: A loom."), ("p", "Something else.", None), ("p", "Nothing of it.", None),
        ("p", "Its parts are named in Figs. 6-8.", None), ("p", "The rest.", None),
    )  # fmt: skip
    vectors = [at(1.0), at(0.3), at(0.25), at(0.2), at(0.35)]
    settings = PairSettings(strategy="page", nearness=0.0)
    found = pair(kinds_of(standing), vectors, settings, standing)
    assert found.matched[0] == 3 and match_kinds(found.matched, standing, settings)[0] == "reference"
    without = PairSettings(strategy="page", nearness=0.0, reference=0.0)
    assert pair(kinds_of(standing), vectors, without, standing).matched[0] == 4
    assert pair(kinds_of(standing), vectors, MMC4).matched[0] == 4


def test_of_sentences_alike_the_near_one_is_taken_and_weights_of_nothing_are_mmc4() -> None:
    standing = page(
        ("p", "Far.", None), ("p", "Of another thing.", None), ("p", "Near.", None), ("img", "", None),
        ("p", "After it.", None),
    )  # fmt: skip
    vectors = [at(0.5), at(0.1), at(0.49, 2), at(1.0), at(0.2, 3)]
    assert pair(kinds_of(standing), vectors, PAGE, standing).matched[3] == 2
    nothing = PairSettings(strategy="page", nearness=0.0, reference=0.0)
    found, published = (pair(kinds_of(standing), vectors, each, standing) for each in (nothing, MMC4))
    assert found.matched == published.matched == (3, None, None, 0, None)
    assert found.similarity == published.similarity


def test_strategy_page_asks_for_places() -> None:
    with pytest.raises(ValueError, match="0 places for 1 slices"):
        pair(["image"], [at(1.0)], PAGE)


def test_matches_are_measured_by_captions_kinds_and_nodes() -> None:
    standing = page(
        ("img", "", "A cat."), ("figcaption", "A cat.", None), ("img", "", "A dog."), ("p", "Text.", None),
        ("p", "More.", None), ("figcaption", "A dog.", None), ("img", "", None),
    )  # fmt: skip
    measured = measure(
        (1, 0, 5, 6, None, 2, 3), ["markup", "markup", "markup", "order", None, "markup", "order"], standing
    )
    assert (measured.num_captioned, measured.num_own_caption) == (2, 2)
    assert measured.kinds == {"markup": 2, "order": 1} and measured.distances == ("1", "3 to 4", "3 to 4")
    missed = measure((1, 0, 4, None, 2, None, None), ["markup", "markup", "order", None, "order", None, None], standing)
    assert (missed.num_captioned, missed.num_own_caption, missed.kinds) == (2, 1, {"markup": 1, "order": 1})
