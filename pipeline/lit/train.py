"""Train the LiT heads: `python -m pipeline.lit.train [--out FOLDER] [--cache FOLDER] [--seed N]`.

Writes `lit_head.safetensors` and its card. Needs Debian's `apt-get download` and `dpkg` for the pairs, and the offline
towers (`python -m assets fetch --group encoders`). About five minutes, most of it for the towers.
"""

from __future__ import annotations

import argparse
import hashlib
import math
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from safetensors.torch import save
from torch.nn.functional import cross_entropy, normalize

import assets
from assets.cache import cache_root
from pictures.decoding import decode
from pictures.headers import Undecodable
from pipeline.lit.holdout import clusters, split
from pipeline.lit.model_card import Measured, Report, card
from pipeline.lit.pairs import SOURCES, Pair, PairsMissing, all_pairs, one_per_text, pairs_of_pages, version
from stages.encoders import conse, lit
from stages.encoders.availability import LIT_WEIGHTS
from stages.encoders.protocol import Encoder, Floats, WeightsMissing
from stages.encoders.registry import load_encoder
from stages.encoders.runtime import Runtime
from stages.images.perceptual_hash import phash

MAX_PIXELS = 4_000_000  # larger training pictures cost seconds and add little
MIN_SIDE = 48  # pixels; below are bullets and buttons
HELD_OUT = 700  # clusters


@dataclass(frozen=True)
class Recipe:
    """All numbers of the training."""

    seed: int = 0
    hidden: int = 512
    dropout: float = 0.3
    epochs: int = 16
    batch_size: int = 1024
    learning_rate: float = 1e-3
    weight_decay: float = 0.1
    warmup_steps: int = 20
    temperature: float = 0.07
    """At the start; it is learned, not below .01 (CLIP's)."""


@dataclass(frozen=True)
class EncodedPairs:
    """Pairs with what the frozen towers make of them."""

    pairs: list[Pair]
    images: Floats
    """(pairs, 1280)."""
    hashes: list[str]
    """Perceptual hashes."""
    texts: dict[str, int]
    """Row of each text in `vectors`."""
    vectors: Floats
    """(texts, 384)."""

    def first_texts(self, rows: Sequence[int]) -> Floats:
        """Vectors of the pairs' first texts: caption or title."""
        return self.vectors[[self.texts[self.pairs[row].texts[0]] for row in rows]]


def encode_pairs(pairs: Sequence[Pair], images: Encoder, sentences: Encoder) -> EncodedPairs:
    """Features of all pairs whose picture can be read and is not tiny."""
    kept: list[Pair] = []
    blocks: list[Floats] = []
    waiting: list[Image.Image] = []
    hashes: list[str] = []
    for pair in pairs:
        try:
            pixels = decode(pair.path.read_bytes(), MAX_PIXELS).pixels
        except Undecodable:
            continue
        if min(pixels.shape[:2]) < MIN_SIDE:
            continue
        kept.append(pair)
        hashes.append(phash(pixels))
        waiting.append(Image.fromarray(pixels))
        if len(waiting) == images.tower.batch_size:
            blocks.append(images.tower.features(waiting))
            waiting.clear()
    blocks.append(images.tower.features(waiting))
    texts = {text: row for row, text in enumerate(dict.fromkeys(text for pair in kept for text in pair.texts))}
    return EncodedPairs(kept, np.concatenate(blocks), hashes, texts, sentences.tower.features(list(texts)))


def train(encoded: EncodedPairs, groups: NDArray[np.int64], rows: NDArray[np.int64], recipe: Recipe) -> lit.Heads:
    """Both heads by symmetric InfoNCE over the pairs in `rows`; pictures of one cluster are no negatives."""
    torch.manual_seed(recipe.seed)
    generator = np.random.default_rng(recipe.seed)
    sentences = load_encoder("minilm", "text", Runtime(batch_size=conse.BATCH_SIZE))
    heads = lit.build(torch.from_numpy(conse.class_vectors(sentences).copy()), recipe.hidden, recipe.dropout)
    scale = torch.nn.Parameter(torch.tensor(math.log(1 / recipe.temperature)))
    weights = [*heads.image.parameters(), *heads.text.parameters()]
    optimizer = torch.optim.AdamW(
        [{"params": weights, "weight_decay": recipe.weight_decay}, {"params": [scale], "weight_decay": 0.0}]
    )
    texts = [[encoded.texts[text] for text in pair.texts] for pair in encoded.pairs]
    batches = [batch for _ in range(recipe.epochs) for batch in shuffled(rows, recipe.batch_size, generator)]
    for step, batch in enumerate(batches):
        # One of a picture's texts, another one each time.
        said = [texts[row][generator.integers(len(texts[row]))] for row in batch]
        pictures = normalize(heads.image(torch.from_numpy(encoded.images[batch])))
        words = normalize(heads.text(torch.from_numpy(encoded.vectors[said])))
        loss = info_nce(pictures, words, torch.from_numpy(groups[batch]), scale)
        for settings in optimizer.param_groups:
            warm = min(1.0, step / recipe.warmup_steps)
            settings["lr"] = recipe.learning_rate * warm * (1 + math.cos(math.pi * step / len(batches))) / 2
        optimizer.zero_grad()
        torch.autograd.backward(loss)
        optimizer.step()
    heads.image.eval()
    heads.text.eval()
    return heads


def shuffled(rows: NDArray[np.int64], size: int, generator: np.random.Generator) -> list[NDArray[np.int64]]:
    """One epoch of batches; a last one less than half full is left out."""
    order = generator.permutation(rows)
    batches = [order[start : start + size] for start in range(0, len(order), size)]
    return batches if len(batches) == 1 or len(batches[-1]) * 2 >= size else batches[:-1]


def info_nce(pictures: torch.Tensor, words: torch.Tensor, group: torch.Tensor, scale: torch.Tensor) -> torch.Tensor:
    """Symmetric InfoNCE of matching rows (van den Oord et al. 2018), without negatives from a row's own group."""
    similarity = pictures @ words.T * scale.exp().clamp(max=100)
    same = (group[:, None] == group[None]) & ~torch.eye(len(group), dtype=torch.bool)
    similarity = similarity.masked_fill(same, -1e4)
    target = torch.arange(len(group))
    return (cross_entropy(similarity, target) + cross_entropy(similarity.T, target)) / 2


def measure(name: str, pictures: Floats, words: Floats) -> Measured:
    """Retrieval of row i's words by row i's picture; a tie counts against it."""
    similarity = pictures @ words.T
    own = np.diagonal(similarity)[:, None]
    ranks = (similarity >= own).sum(axis=1)
    recall = [float((ranks <= k).mean()) for k in (1, 5, 10)]
    return Measured(name, len(ranks), recall[0], recall[1], recall[2], float(np.median(ranks)))


def apply(head: torch.nn.Module, features: Floats) -> Floats:
    """Unit vectors of a head."""
    with torch.inference_mode():
        found: Floats = normalize(head(torch.from_numpy(features))).numpy()
    return found


def half(heads: lit.Heads) -> dict[str, torch.Tensor]:
    """Weights as they are stored, float16."""
    return {
        f"{modality}.{name}": value.half().contiguous()
        for modality, head in (("image", heads.image), ("text", heads.text))
        for name, value in head.state_dict().items()
    }


def run(cache: Path, out: Path, recipe: Recipe) -> Report:
    """Everything: pairs, features, split, training, measuring, files. Raises PairsMissing or WeightsMissing."""
    runtime = Runtime(device="cpu", precision="bfloat16", batch_size=16)
    pictures = load_encoder("efficientnet_lite0", "image", runtime)
    sentences = load_encoder("minilm", "text", runtime)
    print("reading the pairs", flush=True)
    encoded = encode_pairs(all_pairs(cache), pictures, sentences)
    groups = clusters(encoded.pairs, encoded.images, encoded.hashes)
    training, held_out = split(groups, HELD_OUT, recipe.seed)
    print(
        f"{len(encoded.pairs)} pairs in {len(set(groups.tolist()))} clusters; training on {len(training)}", flush=True
    )
    heads = train(encoded, groups, training, recipe)
    out.mkdir(parents=True, exist_ok=True)
    path = out / LIT_WEIGHTS.name
    path.write_bytes(save(half(heads)))

    # From here on, what was stored.
    lit.load_heads.cache_clear()
    stored = lit.load_heads(path)
    convex = conse.image_encoder(pictures.tower, load_encoder("minilm", "text", Runtime(batch_size=conse.BATCH_SIZE)))
    manual = one_per_text(pairs_of_pages(assets.resolve("sasview"), "sasview"))
    sasview = encode_pairs(manual, pictures, sentences)
    figures = [row for row in held_out if encoded.pairs[row].source != "openclipart-png"]
    drawings = [row for row in held_out if encoded.pairs[row].source == "openclipart-png"]
    everything = list(range(len(sasview.pairs)))
    results = []
    for name, of, rows in (
        ("figures and screenshots, held out", encoded, figures),
        ("clip art, held out", encoded, drawings),
        ("sasview's manual, never seen", sasview, everything),
    ):
        images, words = of.images[rows], of.first_texts(rows)
        results.append(measure(f"{name}: lit", apply(stored.image, images), apply(stored.text, words)))
        results.append(measure(f"{name}: conse", convex.vectors(images), sentences.vectors(words)))
    report = Report(
        versions={source.package: version(source, cache) for source in SOURCES},
        pairs={source.package: sum(pair.source == source.package for pair in encoded.pairs) for source in SOURCES},
        clusters=len(set(groups.tolist())),
        training=len(training),
        results=results,
        sha256=hashlib.sha256(path.read_bytes()).hexdigest(),
        size=path.stat().st_size,
        recipe=str(recipe),
    )
    path.with_suffix(".md").write_text(card(report), encoding="utf-8")
    return report


def main(arguments: Sequence[str] | None = None) -> int:
    """Exit status: 0, or 2 with one line on standard error."""
    parser = argparse.ArgumentParser(prog="python -m pipeline.lit.train", description="Train the LiT heads.")
    parser.add_argument("--out", type=Path, default=LIT_WEIGHTS.parent, help="folder of the weights and their card")
    parser.add_argument("--cache", type=Path, default=cache_root().parent / "lit_pairs", help="folder of the sources")
    parser.add_argument("--seed", type=int, default=Recipe.seed)
    given = parser.parse_args(arguments)
    try:
        report = run(given.cache, given.out, Recipe(seed=given.seed))
    except (PairsMissing, WeightsMissing, assets.MissingAsset) as error:
        print(f"python -m pipeline.lit.train: {error}", file=sys.stderr)
        return 2
    print(card(report))
    return 0


if __name__ == "__main__":
    sys.exit(main())
