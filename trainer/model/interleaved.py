"""The interleaved model: any causal language model that reads images between its words and gives retrieval vectors.

    model = InterleavedForCausalLM.from_pretrained("out/demo/train/model")
    model.generate(input_ids=ids, pixel_values=pixels, max_new_tokens=40)

Images stand in `input_ids` as runs of `config.image_token_id`, `config.image_tokens` each; `pixel_values` holds
them in order, uint8 (images, 3, S, S) with S = `config.image_size`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from transformers import AutoConfig, AutoModelForCausalLM, GenerationMixin, PreTrainedConfig, PreTrainedModel
from transformers.modeling_outputs import CausalLMOutputWithPast

from trainer.model import attention
from trainer.model.connector import Connector
from trainer.model.retrieval import RetrievalHead, slice_states
from trainer.model.vision import build_tower

Tensor = torch.Tensor


class InterleavedConfig(PreTrainedConfig):  # type: ignore[no-untyped-call]  # transformers' __init_subclass__
    """Shape of an interleaved model; `text_config` is any causal language model's own configuration."""

    model_type = "interloom"
    sub_configs = {"text_config": AutoConfig}  # noqa: RUF012  (transformers reads this class attribute)

    def __init__(
        self,
        text_config: PreTrainedConfig | dict[str, Any] | None = None,
        tower: str = "patches",
        image_size: int = 32,
        connector_grid: int = 2,
        connector_hidden: int = 64,
        retrieval_dim: int = 64,
        image_token_id: int = 0,
        document_token_id: int = 0,
        **kwargs: Any,
    ) -> None:
        if isinstance(text_config, dict):
            text_config = AutoConfig.for_model(**text_config)
        self.text_config = text_config if text_config is not None else AutoConfig.for_model("llama")
        self.tower, self.image_size = tower, image_size
        self.connector_grid, self.connector_hidden = connector_grid, connector_hidden
        self.retrieval_dim = retrieval_dim
        self.image_token_id, self.document_token_id = image_token_id, document_token_id
        kwargs.setdefault("tie_word_embeddings", getattr(self.text_config, "tie_word_embeddings", False))
        super().__init__(**kwargs)

    @property
    def image_tokens(self) -> int:
        """Placeholders an image takes in `input_ids`."""
        return int(self.connector_grid) ** 2


def new_parts(config: InterleavedConfig) -> tuple[Any, Connector, RetrievalHead]:
    """Tower, connector and retrieval head with random weights: all but the decoder."""
    tower: Any = build_tower(config.tower, config.image_size)
    hidden = config.text_config.hidden_size
    connector = Connector(tower.grid, tower.dim, config.connector_grid, config.connector_hidden, hidden)
    return tower, connector, RetrievalHead(hidden, config.retrieval_dim)


@dataclass
class PackedOutput:
    """loss_sum float32 scalar: cross-entropy summed over targets; retrieval float32 (positions, retrieval_dim)."""

    loss_sum: Tensor
    retrieval: Tensor


class InterleavedForCausalLM(PreTrainedModel, GenerationMixin):  # type: ignore[no-untyped-call]  # as above
    """Vision tower, connector, decoder, retrieval head."""

    config_class = InterleavedConfig
    base_model_prefix = "decoder"
    main_input_name = "input_ids"
    _supports_sdpa = True
    _supports_attention_backend = True
    _tied_weights_keys = {"decoder.lm_head.weight": "decoder.model.embed_tokens.weight"}  # noqa: RUF012

    def __init__(self, config: InterleavedConfig, **kwargs: Any) -> None:
        super().__init__(config, **kwargs)
        self.vision, self.connector, self.retrieval = new_parts(config)
        self.decoder: Any = AutoModelForCausalLM.from_config(config.text_config)  # type: ignore[no-untyped-call]  # as above
        self.decoder.config._attn_implementation = attention.NAME
        self.post_init()  # type: ignore[no-untyped-call]  # as above

    def _init_weights(self, module: nn.Module) -> None:
        """Nothing: every part starts its own weights, and transformers' generic rule would undo them."""

    def get_input_embeddings(self) -> nn.Module:
        """The decoder's word embeddings."""
        embeddings: nn.Module = self.decoder.get_input_embeddings()
        return embeddings

    def get_output_embeddings(self) -> nn.Module:
        """The decoder's LM head."""
        head: nn.Module = self.decoder.get_output_embeddings()
        return head

    def embed_images(self, images: Tensor) -> Tensor:
        """Pixels (n, 3, S, S) or tower features (n, tokens, dim) to embeddings (n * image_tokens, hidden)."""
        features = self.vision(images) if images.dim() == 4 else images
        embedded: Tensor = self.connector(features.to(self.connector.norm.weight.dtype))
        return embedded.flatten(0, 1)

    def embed(self, input_ids: Tensor, images: Tensor | None, image_slots: Tensor) -> Tensor:
        """Embeddings (S, hidden) of one flat sequence; `image_slots` (n * image_tokens,) are its placeholders.

        Without images one blank goes through the connector with weight zero, so that every rank of a distributed
        run has a gradient for the same parameters.
        """
        embeddings: Tensor = self.get_input_embeddings()(input_ids)
        if images is not None and len(images):
            return embeddings.index_copy(0, image_slots, self.embed_images(images).to(embeddings.dtype))
        if not self.training:
            return embeddings
        shape: tuple[int, ...] = (1, 3, self.config.image_size, self.config.image_size)
        trained = any(parameter.requires_grad for parameter in self.vision.parameters())
        if not trained:
            shape = (1, self.vision.grid**2, self.vision.dim)
        blank = torch.zeros(shape, device=input_ids.device)
        return embeddings + 0.0 * self.embed_images(blank).sum().to(embeddings.dtype)

    def forward_packed(self, pack: Any) -> PackedOutput:
        """Loss and retrieval vectors of one pack (trainer.data.collate.PackTensors on the model's device)."""
        hidden = self.hidden_packed(pack)
        head = self.get_output_embeddings()
        logits = head(hidden[pack.target_slots])
        loss = nn.functional.cross_entropy(logits.float(), pack.target_ids, reduction="sum")
        states = slice_states(hidden, pack.state_slots, pack.state_of, pack.num_states)
        return PackedOutput(loss, self.retrieval(states))

    def hidden_packed(self, pack: Any) -> Tensor:
        """Last hidden states (S, hidden) of a pack; a document sees itself alone."""
        embeddings = self.embed(pack.input_ids, pack.images, pack.image_slots)
        hidden: Tensor = self.decoder.get_decoder()(
            inputs_embeds=embeddings[None],
            position_ids=pack.position_ids[None],
            attention_mask=attention.pack_mask(pack.lengths, embeddings.device),
            document_lengths=pack.lengths,
            use_cache=False,
        ).last_hidden_state
        return hidden[0]

    def forward(
        self,
        input_ids: Tensor | None = None,
        pixel_values: Tensor | None = None,
        attention_mask: Tensor | None = None,
        position_ids: Tensor | None = None,
        past_key_values: Any = None,
        inputs_embeds: Tensor | None = None,
        labels: Tensor | None = None,
        use_cache: bool | None = None,
        logits_to_keep: int | Tensor = 0,
        **kwargs: Any,
    ) -> CausalLMOutputWithPast:
        """Next-token logits (B, T, vocabulary) of ordinary, unpacked sequences, as every transformers model gives.

        input_ids int64 (B, T); pixel_values (images, 3, S, S), all images of the batch in order, as pixels or as
        tower features (images, tokens, dim); none where `past_key_values` has them already. Raises ValueError when
        placeholders and images do not match.
        """
        if inputs_embeds is None:
            if input_ids is None:
                raise ValueError("give input_ids or inputs_embeds")
            inputs_embeds = self.get_input_embeddings()(input_ids)
            seen = past_key_values is not None and past_key_values.get_seq_length() > 0
            if pixel_values is not None or not seen:
                slots = (input_ids == self.config.image_token_id).flatten().nonzero()[:, 0]
                given = 0 if pixel_values is None else len(pixel_values)
                if len(slots) != given * self.config.image_tokens:
                    raise ValueError(f"{len(slots)} image tokens for {given} images of {self.config.image_tokens}")
            if pixel_values is not None and len(pixel_values):
                images = self.embed_images(pixel_values).to(inputs_embeds.dtype)
                inputs_embeds = inputs_embeds.flatten(0, 1).index_copy(0, slots, images).view_as(inputs_embeds)
        output: CausalLMOutputWithPast = self.decoder(
            inputs_embeds=inputs_embeds,
            attention_mask=attention_mask,
            position_ids=position_ids,
            past_key_values=past_key_values,
            labels=labels,
            use_cache=use_cache,
            logits_to_keep=logits_to_keep,
            **kwargs,
        )
        return output

    def _expand_inputs_for_generation(  # type: ignore[override]  # transformers names a class of integers
        self,
        expand_size: int = 1,
        is_encoder_decoder: bool = False,
        input_ids: Tensor | None = None,
        pixel_values: Tensor | None = None,
        **kwargs: Any,
    ) -> tuple[Tensor | None, dict[str, Any]]:
        """Every beam and returned sequence sees the pictures of its prompt, in order.

        transformers repeats each row of every tensor, and would give the beams of a prompt copies of one picture.
        """
        if pixel_values is not None and input_ids is not None and expand_size > 1:
            shown = (input_ids == self.config.image_token_id).sum(dim=1)
            counts = (shown // self.config.image_tokens).tolist()
            if shown.sum() != len(pixel_values) * self.config.image_tokens or sum(counts) != len(pixel_values):
                raise ValueError(
                    f"prompts with {shown.tolist()} image tokens for {len(pixel_values)} images of "
                    f"{self.config.image_tokens}"
                )
            beams = [own for own in torch.split(pixel_values, counts) for _ in range(expand_size)]
            pixel_values = torch.cat(beams)
        parent: Any = super()
        ids, inputs = parent._expand_inputs_for_generation(expand_size, is_encoder_decoder, input_ids, **kwargs)
        if pixel_values is not None:
            inputs["pixel_values"] = pixel_values
        return ids, inputs

    def prepare_inputs_for_generation(self, *args: Any, pixel_values: Tensor | None = None, **kwargs: Any) -> Any:
        """The images go in with the prompt; later steps have them in the cache."""
        parent: Any = super()
        inputs = parent.prepare_inputs_for_generation(*args, **kwargs)
        if kwargs.get("is_first_iteration", False) or not kwargs.get("use_cache", True):
            inputs["pixel_values"] = pixel_values
        return inputs


AutoConfig.register("interloom", InterleavedConfig)
AutoModelForCausalLM.register(InterleavedConfig, InterleavedForCausalLM)
