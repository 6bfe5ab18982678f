"""Transforms of image towers by the names a spec uses; no network is loaded, and no torch for the offline encoders."""

from __future__ import annotations

import functools

from stages.encoders.names import parse
from stages.encoders.pixels import Transform, squeezed


@functools.cache
def load_transform(name: str) -> Transform:
    """The transform of a tower, by `tower_name`, once a process; WeightsMissing where a folder's files say it."""
    family, rest = parse(name, "image")
    if family == "hash":
        from stages.encoders import hashing

        return hashing.cells
    if family == "open_clip":
        from stages.encoders import openclip

        return openclip.load_transform(rest, name)[0]
    if family == "timm":
        from stages.encoders import timm_models

        return timm_models.load_transform(rest)[0]
    if family == "hf":
        from stages.encoders import huggingface

        return huggingface.load_transform(huggingface.folder_of(rest, name))[0]
    return squeezed
