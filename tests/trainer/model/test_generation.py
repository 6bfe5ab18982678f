"""Beams and returned sequences see the pictures of their own prompt, in order."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from trainer.model.build import build_model
from trainer.model.interleaved import InterleavedForCausalLM
from trainer.recipe import load_recipe

NEW = 5


@pytest.fixture(scope="module")
def model() -> Any:
    """A tiny random model in which pictures matter."""
    made = build_model(load_recipe("recipes/tiny.yaml").model, 0).model.eval()
    for parameter in made.connector.parameters():
        parameter.data.mul_(2.0)
    return made


def pictures(*seeds: int) -> torch.Tensor:
    drawn = [torch.randint(0, 256, (3, 32, 32), generator=torch.Generator().manual_seed(seed)) for seed in seeds]
    return torch.stack(drawn).to(torch.uint8) if drawn else torch.zeros(0, 3, 32, 32, dtype=torch.uint8)


def prompt(model: InterleavedForCausalLM, images: int, words: bytes) -> list[int]:
    """Document token, then every picture before a word of its own."""
    config = model.config
    ids = [config.document_token_id]
    for number in range(images):
        ids += [config.image_token_id] * config.image_tokens + [words[number % len(words)]]
    return ids + list(words)


def score(model: InterleavedForCausalLM, ids: list[int], start: int, images: torch.Tensor) -> float:
    """Log-probability of ids[start:] after ids[:start] given images, by the forward pass alone."""
    given = {"pixel_values": images} if len(images) else {}
    with torch.no_grad():
        logits = model(input_ids=torch.tensor([ids]), **given).logits[0].float().log_softmax(-1)
    return sum(logits[place - 1, ids[place]].item() for place in range(start, len(ids)))


def generate(
    model: Any, prompts: list[list[int]], images: torch.Tensor | None, **settings: Any
) -> tuple[list[list[int]], Any]:
    """(new tokens of every returned sequence, what `generate` says), prompts padded at the left."""
    longest = max(map(len, prompts))
    padded = [[model.config.document_token_id] * (longest - len(ids)) + ids for ids in prompts]
    mask = [[0] * (longest - len(ids)) + [1] * len(ids) for ids in prompts]
    fixed = {"max_new_tokens": NEW, "min_new_tokens": NEW, "length_penalty": 0.0, "return_dict_in_generate": True}
    said = model.generate(
        input_ids=torch.tensor(padded),
        attention_mask=torch.tensor(mask),
        pixel_values=images,
        output_scores=True,
        output_logits=True,
        pad_token_id=model.config.document_token_id,
        eos_token_id=model.config.document_token_id,
        suppress_tokens=None,
        **fixed,
        **settings,
    )
    return said.sequences[:, longest:].tolist(), said


@pytest.mark.parametrize("cached", [True, False])
@pytest.mark.parametrize("shown", [((1, 2),), ((1,), (2, 3, 4)), ((1, 2), (), (3,)), ((), ())])
def test_a_beams_score_is_its_text_s_given_its_pictures(model: Any, shown: Any, cached: bool) -> None:
    prompts = [prompt(model, len(seeds), words) for seeds, words in zip(shown, (b"cat", b"a dog", b"up"), strict=False)]
    every = [seed for seeds in shown for seed in seeds]
    images = pictures(*every) if every else None
    found, said = generate(
        model, prompts, images, num_beams=3, num_return_sequences=2, do_sample=False, use_cache=cached
    )
    for number, new in enumerate(found):
        own, seeds = prompts[number // 2], shown[number // 2]
        right = score(model, own + new, len(own), pictures(*seeds))
        assert said.sequences_scores[number].item() == pytest.approx(right, abs=2e-4)
        if len(seeds) > 1:
            wrong = score(model, own + new, len(own), pictures(*seeds[:1] * len(seeds)))
            assert abs(wrong - right) > 1e-3  # or the test would not see mixed pictures


def test_drawn_sequences_see_their_pictures(model: Any) -> None:
    torch.manual_seed(0)
    prompts, shown = [prompt(model, 2, b"cat"), prompt(model, 1, b"a dog")], ((1, 2), (3,))
    found, said = generate(model, prompts, pictures(1, 2, 3), num_return_sequences=3, do_sample=True, top_k=0)
    for number, new in enumerate(found):
        own = prompts[number // 3]
        drawn = sum(
            step[number].float().log_softmax(-1)[token].item() for step, token in zip(said.logits, new, strict=True)
        )
        assert drawn == pytest.approx(score(model, own + new, len(own), pictures(*shown[number // 3])), abs=2e-4)


def test_features_of_a_tower_are_expanded_alike(model: Any) -> None:
    own = prompt(model, 2, b"cat")
    with torch.no_grad():
        features = model.vision(pictures(1, 2))
    settings = {"num_beams": 2, "do_sample": False}
    assert generate(model, [own], features, **settings)[0] == generate(model, [own], pictures(1, 2), **settings)[0]


def test_pictures_that_do_not_fit_the_prompts_are_refused(model: Any) -> None:
    own = prompt(model, 2, b"cat")
    with pytest.raises(ValueError, match=r"image tokens for 1 images of 4"):
        generate(model, [own], pictures(1), num_beams=2, do_sample=False)
