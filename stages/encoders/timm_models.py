"""Image encoders by timm, DINOv2 among them: pooled features of `timm:NAME` or `timm:NAME@/path/to/weights`."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Any

from stages.encoders.pixels import Transform, of_library
from stages.encoders.protocol import WeightsMissing
from stages.encoders.runtime import Runtime
from stages.encoders.towers import ImageTower
from stages.encoders.weight_files import check_hub, hash_files, hash_of, hub_file, is_cached, local_path

HUB_FILE = "model.safetensors"


def split(name: str) -> tuple[str, str | None]:
    """Architecture (with tag) and weights' path, None for the hub's."""
    architecture, _, path = name.partition("@")
    return architecture, path or None


def repository(architecture: str, spec: str) -> str:
    """Hub repository of a pretrained architecture; WeightsMissing for a name that timm does not know."""
    import timm

    if not timm.is_model(architecture):
        raise WeightsMissing(f"{spec}: timm knows no model {architecture!r}; see timm.list_models(pretrained=True)")
    config = timm.get_pretrained_cfg(architecture)
    found = getattr(config, "hf_hub_id", None) if config else None
    if not found:
        raise WeightsMissing(f"{spec}: timm has no pretrained weights for {architecture!r}; append @/path/to/weights")
    # timm writes "timm/" for a repository that is named like the architecture.
    return f"{found}{architecture}" if str(found).endswith("/") else str(found)


def check(name: str, spec: str) -> None:
    """WeightsMissing unless the weights are there, cached, or on the hub."""
    architecture, path = split(name)
    hub = repository(architecture, spec) if path is None else ""
    if path is None:
        check_hub(hub, HUB_FILE, spec)
    else:
        local_path(path, spec)


def is_here(name: str, spec: str) -> bool:
    """Whether the weights lie on this machine; WeightsMissing for a name that timm does not know."""
    architecture, path = split(name)
    return path is not None or is_cached(repository(architecture, spec), HUB_FILE)


def weights_of(name: str, spec: str) -> Path:
    """File of the weights; WeightsMissing when it cannot be had."""
    architecture, path = split(name)
    return local_path(path, spec) if path else hub_file(repository(architecture, spec), HUB_FILE, spec)


def load_transform(name: str) -> tuple[Transform, str]:
    """timm's own evaluation transform of an architecture, and its identity."""
    timm: Any = importlib.import_module("timm")
    architecture, _ = split(name)
    config = timm.get_pretrained_cfg(architecture)
    settings = timm.data.resolve_data_config(pretrained_cfg=config.to_dict() if config else None, args={"in_chans": 3})
    return of_library(timm.data.create_transform(**settings, is_training=False))


def load_tower(name: str, spec: str, runtime: Runtime) -> ImageTower:
    """The tower with timm's own evaluation transform; DINOv2's pooled feature is its CLS token."""
    timm: Any = importlib.import_module("timm")  # which exports without saying so
    architecture, _ = split(name)
    file = weights_of(name, spec)
    model = timm.create_model(architecture, pretrained=False, num_classes=0)
    fit = timm.models.load_checkpoint(model, str(file), strict=False)
    # A classifier's weights may be left over, as no classifier is built; a layer without weights may not.
    if fit.missing_keys:
        raise WeightsMissing(f"{spec}: {file} is no checkpoint of {architecture}: it lacks {fit.missing_keys[0]}")
    transform, preprocessing = load_transform(name)
    return ImageTower(
        name=spec,
        preprocessing=preprocessing,
        weights=hash_of(architecture, hash_files(file)),
        width=int(model.num_features),
        runtime=runtime,
        transform=transform,
        forward=runtime.place(model),
    )
