"""The names that a spec may use for encoders, and the libraries behind them; nothing is loaded for a name."""

from __future__ import annotations

from stages.encoders.protocol import Modality

# Which names may stand for which modality.
IMAGE = ("efficientnet_lite0", "conse", "lit", "open_clip:", "timm:", "hf:", "hash:")
TEXT = ("minilm", "conse", "lit", "open_clip:", "hf:", "hash:")
# Values of a vector of `hash:`.
MIN_WIDTH, MAX_WIDTH = 8, 4096
# Distributions whose version shapes the vectors.
LIBRARIES = {
    "efficientnet_lite0": ("efficientnet-lite-pytorch", "torch"),
    "minilm": ("tokenizers", "torch", "transformers"),
    "conse": ("efficientnet-lite-pytorch", "open_clip_torch", "tokenizers", "torch", "transformers"),
    "lit": ("efficientnet-lite-pytorch", "tokenizers", "torch", "transformers"),
    "open_clip": ("open_clip_torch", "torch", "torchvision"),
    "timm": ("timm", "torch", "torchvision"),
    "hf": ("tokenizers", "torch", "torchvision", "transformers"),
    "hash": ("xxhash",),
}


class UnknownEncoder(ValueError):
    """A name that stands for no encoder of that modality."""


def parse(name: str, modality: Modality) -> tuple[str, str]:
    """Family and the rest of a spec's name; UnknownEncoder says what may stand there."""
    family, colon, rest = name.partition(":")
    allowed = IMAGE if modality == "image" else TEXT
    if f"{family}{colon}" not in allowed or bool(colon) != bool(rest):
        raise UnknownEncoder(
            f"{name!r} is no {modality} encoder; there are: {', '.join(allowed)} (then a model's name, or a width)"
        )
    if family == "hash" and not (rest.isascii() and rest.isdigit() and MIN_WIDTH <= int(rest[:9]) <= MAX_WIDTH):
        raise UnknownEncoder(f"{name!r}: hash: takes a width from {MIN_WIDTH} to {MAX_WIDTH}, as in hash:128")
    return family, rest


def libraries(name: str) -> tuple[str, ...]:
    """Distributions whose version shapes the vectors of the encoder."""
    return LIBRARIES[name.partition(":")[0]]
