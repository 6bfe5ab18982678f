"""The model: packing changes nothing, saving changes nothing, the cache changes nothing."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from tests.trainer.conftest import tiny
from trainer.data.collate import PackedSequence, PackTensors, pack, segment_sequence, view_sequence
from trainer.data.corpus import open_corpus
from trainer.data.features import PixelSource
from trainer.data.rows import Limits, build_rows
from trainer.data.shards import ShardCorpus
from trainer.errors import UserError
from trainer.model import attention
from trainer.model.build import Built, build_model, export, merged_state
from trainer.model.interleaved import InterleavedForCausalLM
from trainer.model.vision import EfficientNetLite0
from trainer.recipe import ModelRecipe
from trainer.training.outcome import Outcome

LIMIT = 158


@pytest.fixture(scope="module")
def built(corpus: Path, tmp_path_factory: pytest.TempPathFactory) -> Built:
    recipe = tiny(corpus, tmp_path_factory.mktemp("built"), "model.lora.rank=2")
    made = build_model(recipe.model, 0)
    # Adapters start at zero, where every test of them would pass.
    generator = torch.Generator().manual_seed(5)
    for name, parameter in made.model.named_parameters():
        if "lora_B" in name:
            parameter.data.normal_(generator=generator, std=0.2)
    made.model.eval()
    return made


def sequences(corpus: ShardCorpus, built: Built, count: int = 4, limit: int = LIMIT) -> list[PackedSequence]:
    rows = build_rows(corpus, built.vocabulary, Limits(limit + 2, built.vocabulary.image_tokens, "bytes"))
    made = []
    for row in rows[:count]:
        document = corpus.document(row.document)
        states = tuple(range(row.segment.first, row.segment.last))
        made.append(segment_sequence(document, row, built.vocabulary, limit, states))
        made.append(view_sequence(document, row.segment.first, built.vocabulary, limit))
    return made


def outputs(built: Built, tensors: PackTensors) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """(logits at targets, retrieval vectors, gradient of a mix of both on the retrieval head and connector)."""
    model = built.model
    model.zero_grad()
    hidden = model.hidden_packed(tensors)
    logits = model.get_output_embeddings()(hidden[tensors.target_slots])
    found = model.forward_packed(tensors)
    (found.loss_sum + found.retrieval[:, 0].sum()).backward()
    gradient = model.connector.mlp[1].weight.grad
    assert gradient is not None
    return logits.detach(), found.retrieval.detach(), gradient.clone()


def test_packed_equals_unpacked(corpus: Path, built: Built) -> None:
    opened = open_corpus(str(corpus))
    many = sequences(opened, built)
    source = PixelSource(32, True)
    packed = outputs(built, pack(many, built.vocabulary, source))
    single = [outputs(built, pack([one], built.vocabulary, source)) for one in many if one.images]
    text_only = [one for one in many if not one.images]
    assert len(single) + len(text_only) == len(many)
    with torch.no_grad():
        alone = [built.model.forward_packed(pack([one], built.vocabulary, source)).retrieval for one in many]
    assert torch.allclose(packed[1], torch.cat(alone), atol=1e-5)
    with_images = pack([one for one in many if one.images], built.vocabulary, source)
    logits, _, gradient = outputs(built, with_images)
    assert torch.allclose(logits, torch.cat([one[0] for one in single]), atol=1e-4)
    assert torch.allclose(gradient, sum((one[2] for one in single), torch.zeros(())), atol=1e-4, rtol=1e-4)


def test_block_mask_equals_the_loop(corpus: Path, built: Built, monkeypatch: pytest.MonkeyPatch) -> None:
    tensors = pack(sequences(open_corpus(str(corpus)), built), built.vocabulary, PixelSource(32, True))
    with torch.no_grad():
        loop = built.model.hidden_packed(tensors)
        monkeypatch.setattr(attention, "pack_mask", attention.block_mask)
        assert torch.allclose(built.model.hidden_packed(tensors), loop, atol=1e-5)


def test_a_document_does_not_see_its_neighbour(corpus: Path, built: Built) -> None:
    opened = open_corpus(str(corpus))
    first, second, third = sequences(opened, built)[:3]
    source = PixelSource(32, True)
    size = len(third.encoded.ids)
    with torch.no_grad():
        a = built.model.hidden_packed(pack([first, third], built.vocabulary, source))[-size:]
        b = built.model.hidden_packed(pack([second, third], built.vocabulary, source))[-size:]
        # The known leak: transformers itself, told of restarting positions but asked for a cache, looks across.
        tensors = pack([first, third], built.vocabulary, source)
        embeddings = built.model.embed(tensors.input_ids, tensors.images, tensors.image_slots)[None]
        leaky = built.model.decoder.get_decoder()(
            inputs_embeds=embeddings, position_ids=tensors.position_ids[None], use_cache=True
        ).last_hidden_state[0, -size:]
    assert torch.allclose(a, b, atol=1e-6)
    assert not torch.allclose(a, leaky, atol=1e-2)


def prompt(corpus: Path, built: Built) -> tuple[torch.Tensor, torch.Tensor]:
    opened = open_corpus(str(corpus))
    tensors = pack(sequences(opened, built, 1, limit=600)[:1], built.vocabulary, PixelSource(32, True))
    assert tensors.images is not None and len(tensors.images) == 2
    return tensors.input_ids[None], tensors.images


def test_saved_model_gives_the_same_logits(corpus: Path, built: Built, tmp_path: Path) -> None:
    ids, pixels = prompt(corpus, built)
    built.tokenizer.chat_template = "{{ messages }}"
    export(built.model, built.tokenizer, tmp_path / "model")
    with torch.no_grad():
        expected = built.model(input_ids=ids, pixel_values=pixels).logits
        for loader in (InterleavedForCausalLM, AutoModelForCausalLM):
            loaded = loader.from_pretrained(tmp_path / "model").eval()
            assert torch.allclose(loaded(input_ids=ids, pixel_values=pixels).logits, expected, atol=1e-5)
        assert not any("lora" in name for name in loaded.state_dict())
        # The retrieval head travels too.
        state = torch.randn(3, 48, generator=torch.Generator().manual_seed(1))
        assert torch.equal(loaded.retrieval(state), built.model.retrieval(state))
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "model")
    assert tokenizer.chat_template is None and built.tokenizer.chat_template == "{{ messages }}"
    assert len({path.stat().st_mode for path in (tmp_path / "model").iterdir()}) == 1
    assert tokenizer("A cat.").input_ids == built.tokenizer("A cat.").input_ids


def test_exported_run_loads_and_generates(corpus: Path, built: Built, finished: Outcome) -> None:
    ids, pixels = prompt(corpus, built)
    model = InterleavedForCausalLM.from_pretrained(finished.out / "model").eval()
    text = model.generate(input_ids=ids[:, :60], max_new_tokens=5, min_new_tokens=5, do_sample=False)
    assert text.shape == (1, 65)
    both = model.generate(input_ids=ids, pixel_values=pixels, max_new_tokens=5, min_new_tokens=5, do_sample=False)
    assert both.shape == (1, ids.shape[1] + 5)


@pytest.mark.parametrize("blank", [False, True])
def test_cache_changes_nothing(corpus: Path, built: Built, blank: bool) -> None:
    ids, pixels = prompt(corpus, built)
    pixels = torch.zeros_like(pixels) if blank else pixels  # an all-black image is an image
    written = [
        built.model.generate(
            input_ids=ids, pixel_values=pixels, max_new_tokens=12, min_new_tokens=12, do_sample=False, use_cache=cache
        )
        for cache in (True, False)
    ]
    assert torch.equal(*written)
    with torch.no_grad():
        step = built.model(input_ids=ids, pixel_values=pixels, use_cache=True)
        after = built.model(input_ids=written[0][:, ids.shape[1] :][:, :1], past_key_values=step.past_key_values)
        whole = built.model(input_ids=written[0][:, : ids.shape[1] + 1], pixel_values=pixels)
    assert torch.allclose(after.logits[:, -1], whole.logits[:, -1], atol=1e-4)


def test_images_matter_and_must_fit(corpus: Path, built: Built) -> None:
    ids, pixels = prompt(corpus, built)
    with torch.no_grad():
        shown = built.model(input_ids=ids, pixel_values=pixels).logits[:, -1]
        swapped = built.model(input_ids=ids, pixel_values=pixels.flip(0)).logits[:, -1]
    assert not torch.allclose(shown, swapped, atol=1e-4)
    with pytest.raises(ValueError, match="image tokens for 1 images"):
        built.model(input_ids=ids, pixel_values=pixels[:1])
    for call, extra in ((built.model, {}), (built.model.generate, {"max_new_tokens": 1})):
        with pytest.raises(ValueError, match="8 image tokens for 0 images of 4"):
            call(input_ids=ids, **extra)


def test_adapters_merge_into_plain_names(built: Built) -> None:
    merged = merged_state(built.model)
    assert not any("lora" in name or "base_layer" in name for name in merged)
    layer = built.model.decoder.model.layers[0].self_attn.q_proj
    delta = layer.lora_B["default"].weight @ layer.lora_A["default"].weight * 32 / 2
    expected = layer.base_layer.weight + delta
    assert torch.allclose(merged["decoder.model.layers.0.self_attn.q_proj.weight"], expected, atol=1e-5)


def test_freezing_follows_the_recipe(corpus: Path, tmp_path: Path) -> None:
    recipe = tiny(corpus, tmp_path).model
    made = build_model(recipe, 0).model
    trained = {name.split(".")[0] for name, parameter in made.named_parameters() if parameter.requires_grad}
    assert trained == {"decoder", "connector", "retrieval"}
    with pytest.raises(UserError, match=r"model\.lora\.targets"):
        build_model(ModelRecipe.model_validate({**recipe.model_dump(), "lora": {"rank": 2, "targets": ["nothing"]}}), 0)


def test_efficientnet_stays_in_eval_and_sees_one_image_at_a_time() -> None:
    torch.manual_seed(0)
    tower = EfficientNetLite0(64).train()
    assert not any(module.training for module in tower.modules())
    pixels = torch.randint(0, 256, (2, 3, 64, 64), dtype=torch.uint8)
    with torch.no_grad():
        both, one = tower(pixels), tower(pixels[:1])
    assert both.shape == (2, tower.grid**2, tower.dim) == (2, 4, 1280)
    assert torch.allclose(both[:1], one, atol=1e-5)
