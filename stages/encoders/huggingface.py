"""Encoders in the transformers layout: BERT-like sentence encoders (BGE, MiniLM) and DINOv2-like image encoders."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from PIL import Image

from stages.encoders.pixels import Transform
from stages.encoders.protocol import Floats, WeightsMissing
from stages.encoders.runtime import Runtime
from stages.encoders.towers import ImageTower, TextTower, buckets_up_to
from stages.encoders.weight_files import check_hub, files_of, hash_files, hub_folder, is_cached, local_path, looks_local

# Longest input where neither the sentence-transformers files nor the tokenizer say: BERT's.
DEFAULT_TOKENS = 512
Pooling = Literal["cls", "mean"]


def folder_of(name: str, spec: str) -> Path:
    """Local folder of `name`, a path or a hub repository; WeightsMissing when it cannot be had."""
    folder = local_path(name, spec) if looks_local(name) else hub_folder(name, spec)
    if not (folder / "config.json").is_file():
        raise WeightsMissing(f"{spec}: {folder} holds no config.json")
    if not any(file.suffix in (".safetensors", ".bin") for file in files_of(folder)):
        raise WeightsMissing(f"{spec}: {folder} holds no weights (*.safetensors or pytorch_model.bin)")
    return folder


def check(name: str, spec: str) -> None:
    """WeightsMissing unless `name` is a folder, is cached, or the hub has it."""
    if looks_local(name):
        folder_of(name, spec)
    else:
        check_hub(name, "config.json", spec)


def is_here(name: str, spec: str) -> bool:
    """Whether `name` is a folder, or in the hub's cache."""
    return looks_local(name) or is_cached(name, "config.json")


def read_json(path: Path) -> dict[str, Any]:
    """The object in a JSON file, {} when there is none."""
    found = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    return found if isinstance(found, dict) else {}


def pooling_of(folder: Path) -> Pooling:
    """By the folder's sentence-transformers configuration, else the CLS token (BGE's way)."""
    modes = read_json(folder / "1_Pooling" / "config.json")
    # Older files have a flag for each mode, newer ones a name.
    mean = modes.get("pooling_mode_mean_tokens") or modes.get("pooling_mode") == "mean"
    return "mean" if mean else "cls"


def longest_of(folder: Path, tokenizer: Any) -> int:
    """Longest input in tokens that both the sentence encoder's configuration and the network's positions allow."""
    stated = read_json(folder / "sentence_bert_config.json").get("max_seq_length")
    config = read_json(folder / "config.json")
    bounds = [stated, tokenizer.model_max_length, config.get("max_position_embeddings"), DEFAULT_TOKENS]
    return int(min(bound for bound in bounds if isinstance(bound, int) and bound > 0))


def pool(hidden: torch.Tensor, mask: torch.Tensor, pooling: Pooling) -> torch.Tensor:
    """(batch, length, width) to (batch, width)."""
    if pooling == "cls":
        return hidden[:, 0]
    weights = mask[..., None].to(hidden.dtype)
    return (hidden * weights).sum(1) / weights.sum(1)


def load_text_tower(folder: Path, spec: str, runtime: Runtime) -> TextTower:
    """A sentence encoder out of its folder, pooled as its configuration says."""
    from transformers import AutoModel, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True)
    model = runtime.place(AutoModel.from_pretrained(folder, local_files_only=True, dtype=torch.float32))
    pooling = pooling_of(folder)
    longest = longest_of(folder, tokenizer)

    def tokenize(texts: Any) -> list[list[int]]:
        found: list[list[int]] = tokenizer(texts, truncation=True, max_length=longest)["input_ids"]
        return found

    def forward(ids: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        return pool(model(input_ids=ids, attention_mask=mask).last_hidden_state, mask, pooling)

    return TextTower(
        name=spec,
        preprocessing=f"{type(tokenizer).__name__}, {longest} tokens, {pooling} pooling",
        weights=hash_files(folder),
        width=int(model.config.hidden_size),
        runtime=runtime,
        tokenize=tokenize,
        padding=int(tokenizer.pad_token_id or 0),
        buckets=buckets_up_to(longest),
        forward=forward,
    )


def load_transform(folder: Path) -> tuple[Transform, str]:
    """The folder's own image processor, and its identity."""
    from transformers import AutoImageProcessor

    processor: Any = AutoImageProcessor.from_pretrained(folder, local_files_only=True)  # type: ignore[no-untyped-call]
    # (transformers leaves this one function untyped.)

    def transform(picture: Image.Image) -> Floats:
        pixels = processor(images=picture, return_tensors="pt")["pixel_values"][0]
        return np.asarray(pixels.numpy(), dtype=np.float32)

    return transform, f"{type(processor).__name__} of the folder"


def load_image_tower(folder: Path, spec: str, runtime: Runtime) -> ImageTower:
    """An image encoder out of its folder: the CLS token of the last layer, after the final norm (DINOv2)."""
    from transformers import AutoModel

    transform, preprocessing = load_transform(folder)
    model = runtime.place(AutoModel.from_pretrained(folder, local_files_only=True, dtype=torch.float32))

    def forward(pixels: torch.Tensor) -> torch.Tensor:
        hidden: torch.Tensor = model(pixel_values=pixels).last_hidden_state
        return hidden[:, 0]

    return ImageTower(
        name=spec,
        preprocessing=preprocessing,
        weights=hash_files(folder),
        width=int(model.config.hidden_size),
        runtime=runtime,
        transform=transform,
        forward=forward,
    )
