"""Encoders by the names a spec uses, loaded once a process; the libraries of a family when one of it is."""

from __future__ import annotations

import functools
from dataclasses import replace

from stages.encoders import hashing
from stages.encoders.availability import check_encoder, minilm_folder
from stages.encoders.names import parse
from stages.encoders.protocol import Encoder, Modality, Tower
from stages.encoders.runtime import Runtime

DEFAULT = Runtime()


@functools.cache
def load_tower(name: str, modality: Modality, runtime: Runtime) -> Tower:
    """The tower of an encoder, once a process."""
    family, rest = parse(name, modality)
    if family == "hash":
        return hashing.HashTower(name, int(rest), modality, runtime.batch_size)
    if family == "open_clip":
        from stages.encoders import openclip

        return openclip.load_tower(rest, name, modality, runtime)
    if family == "timm":
        from stages.encoders import timm_models

        return timm_models.load_tower(rest, name, runtime)
    if family == "hf":
        from stages.encoders import huggingface

        load = huggingface.load_image_tower if modality == "image" else huggingface.load_text_tower
        return load(huggingface.folder_of(rest, name), name, runtime)
    # The offline encoders stand on the same two towers, whichever of them is named.
    if modality == "image":
        return efficientnet_tower(runtime)
    return minilm_tower(runtime)


@functools.cache
def efficientnet_tower(runtime: Runtime) -> Tower:
    """EfficientNet-Lite0, once a process."""
    from stages.encoders import efficientnet

    return efficientnet.load_tower(runtime)


@functools.cache
def minilm_tower(runtime: Runtime) -> Tower:
    """all-MiniLM-L6-v2, once a process."""
    from stages.encoders import huggingface

    return huggingface.load_text_tower(minilm_folder(), "minilm", runtime)


@functools.cache
def load_encoder(name: str, modality: Modality, runtime: Runtime = DEFAULT) -> Encoder:
    """The encoder of that name, once a process.

    Raises UnknownEncoder for a name that is none, WeightsMissing when its weights cannot be had.
    """
    family, _ = parse(name, modality)
    check_encoder(name, modality)
    tower = load_tower(name, modality, runtime)
    if family == "lit":
        from stages.encoders import lit

        return lit.encoder(tower, modality)
    if family == "conse" and modality == "image":
        from stages.encoders import conse

        sentences = load_encoder("minilm", "text", replace(runtime, batch_size=conse.BATCH_SIZE))
        return conse.image_encoder(tower, sentences)
    return Encoder(name, tower.width, modality, tower, tower.weights)
