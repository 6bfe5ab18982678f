"""Shared image-text encoders by open_clip: `open_clip:NAME/PRETRAINED`, where PRETRAINED may be a local file."""

from __future__ import annotations

import functools
from dataclasses import asdict
from pathlib import Path
from typing import Any

from stages.encoders.pixels import Transform, of_library
from stages.encoders.protocol import Modality, WeightsMissing
from stages.encoders.runtime import Runtime
from stages.encoders.towers import ImageTower, TextTower
from stages.encoders.weight_files import check_hub, hash_files, hash_of, hub_file, is_cached, local_path, looks_local

# Names under which open_clip's repositories keep their weights, the preferred one first.
HUB_FILES = ("open_clip_model.safetensors", "open_clip_pytorch_model.bin")


def split(name: str, spec: str) -> tuple[str, str]:
    """Model and pretrained tag or path; WeightsMissing for a name that open_clip does not know."""
    import open_clip

    model, _, pretrained = name.partition("/")
    if model not in open_clip.list_models():
        raise WeightsMissing(f"{spec}: open_clip knows no model {model!r}; see open_clip.list_models()")
    if not pretrained:
        raise WeightsMissing(f"{spec}: name the weights, open_clip:{model}/TAG or open_clip:{model}//path/to/weights")
    if not looks_local(pretrained) and open_clip.get_pretrained_cfg(model, pretrained) == {}:
        tags = ", ".join(open_clip.list_pretrained_tags_by_model(model))
        raise WeightsMissing(f"{spec}: open_clip has no weights {pretrained!r} for {model}, only: {tags or 'none'}")
    return model, pretrained


def repository(model: str, pretrained: str, spec: str) -> str:
    """Hub repository of a pretrained tag."""
    import open_clip

    found = str(open_clip.get_pretrained_cfg(model, pretrained).get("hf_hub", "")).rstrip("/")
    if not found:
        raise WeightsMissing(f"{spec}: these weights are not on the hub; download them and name the file")
    return found


def check(name: str, spec: str) -> None:
    """WeightsMissing unless the weights are there, cached, or on the hub."""
    model, pretrained = split(name, spec)
    if looks_local(pretrained):
        local_path(pretrained, spec)
        return
    hub = repository(model, pretrained, spec)
    try:
        check_hub(hub, HUB_FILES[0], spec)
    except WeightsMissing:
        check_hub(hub, HUB_FILES[1], spec)


def is_here(name: str, spec: str) -> bool:
    """Whether the weights lie on this machine; WeightsMissing for a name that open_clip does not know."""
    model, pretrained = split(name, spec)
    return looks_local(pretrained) or is_cached(repository(model, pretrained, spec), *HUB_FILES)


def weights_of(name: str, spec: str) -> Path:
    """File of the weights; WeightsMissing when it cannot be had."""
    model, pretrained = split(name, spec)
    if looks_local(pretrained):
        return local_path(pretrained, spec)
    hub = repository(model, pretrained, spec)
    try:
        return hub_file(hub, HUB_FILES[0], spec)
    except WeightsMissing:
        return hub_file(hub, HUB_FILES[1], spec)


@functools.cache
def load_model(model: str, file: Path, runtime: Runtime) -> Any:
    """The model in place; both towers come out of one load."""
    import open_clip

    return runtime.place(open_clip.create_model(model, pretrained=str(file), pretrained_image=False, weights_only=True))


def load_transform(name: str, spec: str) -> tuple[Transform, str]:
    """The evaluation transform that goes with the weights, and its identity; a file has the library's own."""
    import open_clip
    from open_clip.transform import PreprocessCfg, image_transform_v2, merge_preprocess_dict

    architecture, pretrained = split(name, spec)
    stated = {} if looks_local(pretrained) else open_clip.get_pretrained_cfg(architecture, pretrained)
    size = open_clip.get_model_config(architecture)["vision_cfg"].get("image_size", PreprocessCfg().size)
    settings = {**merge_preprocess_dict(asdict(PreprocessCfg()), stated), "size": size}
    return of_library(image_transform_v2(PreprocessCfg(**settings), is_train=False))


def load_tower(name: str, spec: str, modality: Modality, runtime: Runtime) -> ImageTower | TextTower:
    """One of the two towers, before the normalisation."""
    import open_clip

    architecture, _ = split(name, spec)
    file = weights_of(name, spec)
    model = load_model(architecture, file, runtime)
    weights = hash_of(architecture, hash_files(file))
    width = int(open_clip.get_model_config(architecture)["embed_dim"])
    if modality == "image":
        transform, preprocessing = load_transform(name, spec)
        return ImageTower(spec, preprocessing, weights, width, runtime, transform, model.encode_image)

    tokenizer = open_clip.get_tokenizer(architecture)

    def tokenize(texts: Any) -> list[list[int]]:
        found: list[list[int]] = tokenizer(texts).tolist()
        return found

    return TextTower(
        name=spec,
        preprocessing=f"{type(tokenizer).__name__}, {tokenizer.context_length} tokens",
        weights=weights,
        width=width,
        runtime=runtime,
        tokenize=tokenize,
        padding=0,
        # The library pads to one length itself.
        buckets=(int(tokenizer.context_length),),
        forward=lambda ids, _: model.encode_text(ids),
    )
