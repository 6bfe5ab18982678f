"""The LiT training's parts on small pages and made-up features; the real run takes its pairs from Debian."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from pipeline.lit import pairs as lit_pairs
from pipeline.lit import train as train_lit
from pipeline.lit.holdout import clusters, split
from pipeline.lit.model_card import Report, card
from pipeline.lit.pairs import SOURCES, Pair, PairsMissing, download, one_per_text, pairs_of_clip_art, pairs_of_pages
from pipeline.lit.train import EncodedPairs, Recipe, info_nce, measure, shuffled, train
from stages.encoders import conse, efficientnet, lit
from stages.encoders.availability import LIT_WEIGHTS, efficientnet_file
from stages.encoders.protocol import WeightsMissing

PAGE = """<html><body><nav><img src="logo.png" alt="our logo"></nav><div role="main">
<h1>Edge operators<a class="headerlink">¶</a></h1><p>They find edges. Many are known.</p>
<figure><img src="edges.png" alt="edges.png"><figcaption><p>Fig. 3 The Sobel operator.</p></figcaption></figure>
<h2>Noise</h2><img src="noise.png" alt="A noisy photograph"><img src="missing.png" alt="not there">
<img src="math/form_1.png" alt="a formula"></div></body></html>"""
DRAWING = """<svg><metadata><dc:title>Chemistry Flask</dc:title>
<dc:description>A flask &amp;quot;with&amp;quot; bubbles.
</dc:description><rdf:li>science</rdf:li><rdf:li>apparatus</rdf:li></metadata></svg>"""


def draw(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (8, 8)).save(path)
    return path


def test_pictures_of_a_page_and_their_words(tmp_path: Path) -> None:
    (tmp_path / "page.html").write_text(PAGE, encoding="utf-8")
    for name in ("edges.png", "noise.png", "logo.png", "math/form_1.png"):
        draw(tmp_path / name)
    edges, noise = pairs_of_pages(tmp_path, "manual")
    assert edges.path.name == "edges.png" and edges.page == "page.html"
    assert edges.texts == (
        "The Sobel operator.",
        "They find edges.",
        "Edge operators: They find edges.",
        "Edge operators",
    )
    assert noise.texts == ("A noisy photograph", "Noise")


def test_pictures_on_many_pages_are_furniture(tmp_path: Path) -> None:
    draw(tmp_path / "edges.png")
    for number in range(lit_pairs.MAX_PAGES + 1):
        (tmp_path / f"{number}.html").write_text(PAGE, encoding="utf-8")
    assert pairs_of_pages(tmp_path, "manual") == []


def test_clip_art_takes_its_words_from_the_drawing(tmp_path: Path) -> None:
    flask = draw(tmp_path / "png" / "science" / "flask.png")
    draw(tmp_path / "png" / "nameless.png")
    (tmp_path / "flask.svg").write_text(DRAWING, encoding="utf-8")
    (pair,) = pairs_of_clip_art(tmp_path / "png", tmp_path, "clips")
    assert pair == Pair(
        flask,
        (
            "Chemistry Flask",
            "A flask with bubbles.",
            "Chemistry Flask: science, apparatus",
            "science, apparatus",
        ),
        "clips",
        "flask",
    )


def test_without_debians_tools_it_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(PairsMissing, match="apt-get is not here"):
        download(SOURCES[0], tmp_path / "cache")
    # What was unpacked before is taken as it is.
    (tmp_path / "cache" / SOURCES[0].package).mkdir()
    assert download(SOURCES[0], tmp_path / "cache").is_dir()


def pair(page: str, text: str) -> Pair:
    return Pair(Path(f"{page}.png"), (text,), "manual", page)


def test_clusters_join_pages_words_and_looks_and_are_held_out_whole() -> None:
    pairs = [
        pair("a", "one"),
        pair("a", "two"),
        pair("b", "A flag 1"),
        pair("c", "a Flag 22"),
        pair("d", "x"),
        pair("e", "y"),
    ]
    looks = np.eye(6, 1280, dtype=np.float32)
    looks[5] = looks[4] * 3
    hashes = [f"{(255 << 8 * row):016x}" for row in range(6)]
    groups = clusters(pairs, looks, hashes)
    assert groups.tolist() == [0, 0, 2, 2, 4, 4]
    hashes[4] = f"{(255 << 16) + 1:016x}"  # one bit from row 2's
    assert clusters(pairs, looks, hashes).tolist() == [0, 0, 2, 2, 2, 2]
    for seed in range(5):
        training, held_out = split(groups, 2, seed)
        assert len(held_out) == 2 and not set(groups[training]) & set(groups[held_out])
    assert [found.page for found in one_per_text(pairs)] == ["a", "a", "b", "d", "e"]


def test_info_nce_asks_no_row_to_leave_its_own_cluster() -> None:
    vectors = torch.eye(3)
    apart = torch.tensor([0, 1, 2])
    scale = torch.tensor(3.0)
    assert info_nce(vectors, vectors, apart, scale) < info_nce(vectors, vectors.roll(1, 0), apart, scale)
    twins = vectors[[0, 0, 2]]
    assert info_nce(twins, twins, torch.tensor([0, 0, 2]), scale) < info_nce(twins, twins, apart, scale)


def test_ranks_count_ties_against_the_model() -> None:
    perfect = measure("perfect", np.eye(20, dtype=np.float32), np.eye(20, dtype=np.float32))
    assert (perfect.recall_1, perfect.median_rank, perfect.count) == (1.0, 1.0, 20)
    blind = measure("blind", np.ones((20, 4), np.float32), np.ones((20, 4), np.float32))
    assert (blind.recall_1, blind.recall_10, blind.median_rank) == (0.0, 0.0, 20.0)


def test_an_epoch_is_every_row_but_a_small_rest() -> None:
    generator = np.random.default_rng(0)
    assert sorted(np.concatenate(shuffled(np.arange(25), 10, generator)).tolist()) == list(range(25))
    assert [len(batch) for batch in shuffled(np.arange(24), 10, generator)] == [10, 10]
    assert [len(batch) for batch in shuffled(np.arange(4), 10, generator)] == [4]


@pytest.fixture
def towers() -> None:
    try:
        efficientnet_file()
    except WeightsMissing as error:
        pytest.skip(f"the offline encoders' weights are not here: {error}")


@pytest.mark.slow
def test_training_teaches_what_conse_does_not_know(towers: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """Random features with random words: chance before, found after, and the same weights from the same seed."""
    torch.set_num_threads(1)
    generator = np.random.default_rng(0)
    classes = generator.normal(size=(1000, 384)).astype(np.float32)
    monkeypatch.setattr(conse, "class_vectors", lambda _: classes)
    monkeypatch.setattr(train_lit, "load_encoder", lambda *_: None)
    pairs = [pair(str(row), f"text {row}") for row in range(40)]
    images = np.abs(generator.normal(size=(40, 1280))).astype(np.float32)
    words = generator.normal(size=(40, 384)).astype(np.float32)
    encoded = EncodedPairs(pairs, images, [""] * 40, {f"text {row}": row for row in range(40)}, words)
    recipe = Recipe(hidden=32, dropout=0.0, epochs=40, batch_size=40)
    rows = np.arange(40)
    before = lit.build(torch.from_numpy(classes), 32)
    heads = train(encoded, rows, rows, recipe)

    def found(heads: lit.Heads) -> float:
        shown, said = train_lit.apply(heads.image, images), train_lit.apply(heads.text, words)
        return measure("", shown, said).recall_1

    assert found(before) < 0.2 and found(heads) > 0.9
    again = train_lit.half(train(encoded, rows, rows, recipe))
    assert all(torch.equal(value, again[name]) for name, value in train_lit.half(heads).items())


def test_untrained_heads_are_conse(towers: None) -> None:
    """All classes in place of the ten likeliest, which differ by little."""
    generator = np.random.default_rng(1)
    classes = torch.from_numpy(generator.normal(size=(1000, 384)).astype(np.float32))
    features = torch.from_numpy(np.abs(generator.normal(size=(3, 1280))).astype(np.float32))
    heads = lit.build(classes, 16)
    last = efficientnet.classifier()
    logits = features @ torch.from_numpy(last.weight).T + torch.from_numpy(last.bias)
    expected = torch.nn.functional.normalize(torch.softmax(logits, 1) @ classes)
    assert torch.allclose(heads.image(features), expected, atol=1e-5)
    words = torch.from_numpy(generator.normal(size=(3, 384)).astype(np.float32))
    assert torch.allclose(heads.text(words), torch.nn.functional.normalize(words), atol=1e-6)


def test_the_stored_heads_have_a_card_that_names_them() -> None:
    import hashlib

    text = LIT_WEIGHTS.with_suffix(".md").read_text(encoding="utf-8")
    assert hashlib.sha256(LIT_WEIGHTS.read_bytes()).hexdigest() in text
    assert all(source.package in text and source.licence in text for source in SOURCES)


def test_the_card_says_what_was_measured() -> None:
    result = measure("figures: lit", np.eye(4, dtype=np.float32), np.eye(4, dtype=np.float32))
    counts = {source.package: 1 for source in SOURCES}
    versions = {source.package: "1.2" for source in SOURCES}
    said = card(Report(counts, versions, 7, 5, [result], "ab" * 32, 3_000_000, str(Recipe())))
    assert "| figures: lit | 4 | 1.000 | 1.000 | 1.000 | 1 | 0.2500 |" in said
    assert "3,000,000 bytes" in said and "| opencv-doc | 1.2 | Apache-2.0 | 1 |" in said
