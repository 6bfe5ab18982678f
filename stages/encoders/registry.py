"""Encoders by the names a spec uses: `open_clip:`, `timm:` and `hf:` with a model, or one of the offline four."""

from __future__ import annotations

import functools
from dataclasses import replace

from stages.encoders import conse, efficientnet, huggingface, lit, openclip, timm_models
from stages.encoders.protocol import Encoder, Modality, Tower, WeightsMissing
from stages.encoders.towers import Runtime
from stages.encoders.weight_files import hash_files, hash_of

# Which names may stand for which modality.
IMAGE = ("efficientnet_lite0", "conse", "lit", "open_clip:", "timm:", "hf:")
TEXT = ("minilm", "conse", "lit", "open_clip:", "hf:")
# Distributions whose version shapes the vectors.
LIBRARIES = {
    "efficientnet_lite0": ("efficientnet-lite-pytorch", "torch"),
    "minilm": ("tokenizers", "torch", "transformers"),
    "conse": ("efficientnet-lite-pytorch", "open_clip_torch", "tokenizers", "torch", "transformers"),
    "lit": ("efficientnet-lite-pytorch", "tokenizers", "torch", "transformers"),
    "open_clip": ("open_clip_torch", "torch", "torchvision"),
    "timm": ("timm", "torch", "torchvision"),
    "hf": ("tokenizers", "torch", "torchvision", "transformers"),
}

DEFAULT = Runtime()


class UnknownEncoder(ValueError):
    """A name that stands for no encoder of that modality."""


def parse(name: str, modality: Modality) -> tuple[str, str]:
    """Family and the rest of a spec's name; UnknownEncoder says what may stand there."""
    family, colon, rest = name.partition(":")
    allowed = IMAGE if modality == "image" else TEXT
    if f"{family}{colon}" not in allowed or bool(colon) != bool(rest):
        raise UnknownEncoder(
            f"{name!r} is no {modality} encoder; there are: {', '.join(allowed)} (then a model's name)"
        )
    return family, rest


def libraries(name: str) -> tuple[str, ...]:
    """Distributions whose version shapes the vectors of the encoder."""
    return LIBRARIES[name.partition(":")[0]]


def check_encoder(name: str, modality: Modality) -> None:
    """WeightsMissing unless the weights are there or the hub has them; loads and downloads nothing."""
    family, rest = parse(name, modality)
    if family == "open_clip":
        openclip.check(rest, name)
    elif family == "timm":
        timm_models.check(rest, name)
    elif family == "hf":
        huggingface.check(rest, name)
    if family == "efficientnet_lite0" or (family in ("conse", "lit") and modality == "image"):
        efficientnet.path()
    if family in ("minilm", "conse") or (family == "lit" and modality == "text"):
        huggingface.minilm_folder()
    if family == "lit" and not lit.WEIGHTS.is_file():
        raise WeightsMissing(f"lit: there is no {lit.WEIGHTS}; make it with `python -m pipeline.train_lit`")


@functools.cache
def weights_hash(name: str, modality: Modality) -> str:
    """xxh3-128 hex over the files of the encoder, the same as its `weights`; downloads what is not there.

    Raises WeightsMissing. Loads no network: a driver asks for this to know what it has already computed.
    """
    family, rest = parse(name, modality)
    check_encoder(name, modality)
    if family == "open_clip":
        model, _ = openclip.split(rest, name)
        return hash_of(model, hash_files(openclip.weights_of(rest, name)))
    if family == "timm":
        architecture, _ = timm_models.split(rest)
        return hash_of(architecture, hash_files(timm_models.weights_of(rest, name)))
    if family == "hf":
        return hash_files(huggingface.folder_of(rest, name))
    tower = hash_files(efficientnet.path() if modality == "image" else huggingface.minilm_folder())
    if family == "lit":
        return lit.digest(modality, tower)
    if family == "conse" and modality == "image":
        return conse.digest(tower, hash_files(huggingface.minilm_folder()))
    return tower


@functools.cache
def load_tower(name: str, modality: Modality, runtime: Runtime) -> Tower:
    """The tower of an encoder, once a process."""
    family, rest = parse(name, modality)
    if family == "open_clip":
        return openclip.load_tower(rest, name, modality, runtime)
    if family == "timm":
        return timm_models.load_tower(rest, name, runtime)
    if family == "hf":
        load = huggingface.load_image_tower if modality == "image" else huggingface.load_text_tower
        return load(huggingface.folder_of(rest, name), name, runtime)
    # The offline encoders stand on the same two towers, whichever of them is named.
    if modality == "image":
        return efficientnet_tower(runtime)
    return minilm_tower(runtime)


@functools.cache
def efficientnet_tower(runtime: Runtime) -> Tower:
    """EfficientNet-Lite0, once a process."""
    return efficientnet.load_tower(runtime)


@functools.cache
def minilm_tower(runtime: Runtime) -> Tower:
    """all-MiniLM-L6-v2, once a process."""
    return huggingface.load_text_tower(huggingface.minilm_folder(), "minilm", runtime)


@functools.cache
def load_encoder(name: str, modality: Modality, runtime: Runtime = DEFAULT) -> Encoder:
    """The encoder of that name, once a process.

    Raises UnknownEncoder for a name that is none, WeightsMissing when its weights cannot be had.
    """
    family, _ = parse(name, modality)
    check_encoder(name, modality)
    tower = load_tower(name, modality, runtime)
    if family == "lit":
        return lit.encoder(tower, modality)
    if family == "conse" and modality == "image":
        sentences = load_encoder("minilm", "text", replace(runtime, batch_size=conse.BATCH_SIZE))
        return conse.image_encoder(tower, sentences)
    return Encoder(name, tower.width, modality, tower, tower.weights)
