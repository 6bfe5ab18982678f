"""Text after a picture: what the held-out example of a run and `python -m trainer.generate` both show."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

Tensor = torch.Tensor


def write(model: Any, tokenizer: Any, ids: Sequence[int], images: Tensor, max_new_tokens: int) -> str:
    """Greedy text after a prompt, up to the end of the document; `model` an InterleavedForCausalLM.

    ids: the prompt, from its document token on, images as runs of placeholders. images: pixels uint8 (n, 3, S, S) or
    tower features (n, tokens, dim). Raises ValueError when placeholders and images do not match.
    """
    config = model.config
    prompt = torch.tensor([list(ids)], device=model.device)
    written = model.generate(
        input_ids=prompt,
        attention_mask=torch.ones_like(prompt),
        pixel_values=images.to(model.device),
        max_new_tokens=max_new_tokens,
        do_sample=False,
        pad_token_id=config.document_token_id,
        eos_token_id=config.document_token_id,
        # Placeholders stand for images that are given, never for text.
        suppress_tokens=[config.image_token_id],
    )
    return str(tokenizer.decode(written[0, prompt.shape[1] :], skip_special_tokens=True)).strip()
