"""The production encoders' code paths: local folders with small random weights, and a hub on loopback."""

from __future__ import annotations

import http.server
import json
import os
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import skimage.data
import torch
import transformers
from PIL import Image
from safetensors.torch import save_file

from stages.encoders.availability import check_encoder, weights_hash
from stages.encoders.embed import EmbedSettings, check_available
from stages.encoders.protocol import Encoder, WeightsMissing
from stages.encoders.registry import load_encoder, load_tower
from stages.encoders.runtime import Runtime

# An untyped corner of a typed library.
HF: Any = transformers
# As in a worker; more threads than free cores would wait for each other.
torch.set_num_threads(1)
REPOSITORY = Path(__file__).parents[3]
PHOTOS = [Image.fromarray(getattr(skimage.data, name)()) for name in ("chelsea", "coffee", "rocket")]
SENTENCES = ["a cat", "a cup of coffee on a table", "cat " * 30, "coffee " * 500]
RUNTIME = Runtime(device="cpu", batch_size=4)
WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "a", "cat", "cup", "of", "coffee", "on", "table"]
TINY_CLIP = {
    "embed_dim": 24,
    "vision_cfg": {"image_size": 32, "layers": 2, "width": 64, "patch_size": 8, "head_width": 32},
    "text_cfg": {"context_length": 16, "vocab_size": 49408, "width": 32, "heads": 2, "layers": 2},
}


def unit(vectors: torch.Tensor) -> np.ndarray[Any, Any]:
    return np.asarray(torch.nn.functional.normalize(vectors, dim=-1).numpy())


def assert_like(encoder: Encoder, contents: list[Any], expected: torch.Tensor) -> None:
    """Equal to the library's own vectors, whatever the order, and bit for bit independent of company."""
    found = encoder.encode(contents)
    assert found.shape == expected.shape and encoder.dimension == expected.shape[1]
    assert np.abs(found - unit(expected)).max() < 1e-5
    assert encoder.encode(contents[::-1])[::-1].tobytes() == found.tobytes()
    for content, vector in zip(contents, found, strict=True):
        assert encoder.encode([content])[0].tobytes() == vector.tobytes()


@pytest.fixture(scope="module")
def bert(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A BERT of BGE's layout: safetensors, tokenizer, no word on pooling."""
    folder = tmp_path_factory.mktemp("hub") / "bert"
    folder.mkdir()
    torch.manual_seed(0)
    config = transformers.BertConfig(
        vocab_size=len(WORDS),
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=64,
        max_position_embeddings=64,
    )
    transformers.BertModel(config).save_pretrained(folder)
    (folder / "vocab.txt").write_text("\n".join(WORDS), encoding="utf-8")
    tokenizer: Any = transformers.BertTokenizer(str(folder / "vocab.txt"), model_max_length=64)
    tokenizer.save_pretrained(folder)
    return folder


@pytest.mark.parametrize("pooling", ["cls", "mean"])
def test_sentence_encoders_are_pooled_as_their_folder_says(bert: Path, pooling: str) -> None:
    if pooling == "mean":
        (bert / "1_Pooling").mkdir()
        (bert / "1_Pooling" / "config.json").write_text(
            json.dumps({"pooling_mode_mean_tokens": True}), encoding="utf-8"
        )
        load_encoder.cache_clear()
        load_tower.cache_clear()
    encoder = load_encoder(f"hf:{bert}", "text", RUNTIME)
    assert encoder.preprocessing.endswith(f"64 tokens, {pooling} pooling")
    tokenizer, model = (
        transformers.AutoTokenizer.from_pretrained(bert),
        transformers.AutoModel.from_pretrained(bert).eval(),
    )
    rows = []
    with torch.inference_mode():
        for sentence in SENTENCES:
            hidden = model(
                **tokenizer(sentence, truncation=True, max_length=64, return_tensors="pt")
            ).last_hidden_state[0]
            rows.append(hidden[0] if pooling == "cls" else hidden.mean(0))
    assert_like(encoder, SENTENCES, torch.stack(rows))


def test_dinov2_in_the_transformers_layout(tmp_path: Path) -> None:
    torch.manual_seed(0)
    config = transformers.Dinov2Config(
        hidden_size=32, num_hidden_layers=2, num_attention_heads=2, image_size=28, patch_size=14, mlp_ratio=2
    )
    transformers.Dinov2Model(config).save_pretrained(tmp_path)
    crop = {"height": 28, "width": 28}
    transformers.BitImageProcessor(size={"shortest_edge": 32}, crop_size=crop).save_pretrained(tmp_path)
    processor, model = (
        HF.AutoImageProcessor.from_pretrained(tmp_path),
        transformers.AutoModel.from_pretrained(tmp_path),
    )
    with torch.inference_mode():
        expected = model.eval()(**processor(images=PHOTOS, return_tensors="pt")).last_hidden_state[:, 0]
    assert_like(load_encoder(f"hf:{tmp_path}", "image", RUNTIME), PHOTOS, expected)


@pytest.mark.slow
@pytest.mark.parametrize("architecture", ["vit_small_patch14_dinov2.lvd142m", "test_resnet.r160_in1k"])
def test_timm_by_a_local_checkpoint(tmp_path: Path, architecture: str) -> None:
    import timm  # with open_clip below it takes seconds: whoever runs other tests does without

    torch.manual_seed(0)
    whole = timm.create_model(architecture, pretrained=False).eval()
    file = tmp_path / "weights.safetensors"
    save_file(whole.state_dict(), file)
    bare = whole
    if whole.num_classes:
        bare = timm.create_model(architecture, pretrained=False, num_classes=0).eval()
        bare.load_state_dict(whole.state_dict(), strict=False)
    data: Any = timm.data
    transform = data.create_transform(**data.resolve_model_data_config(bare), is_training=False)
    # DINOv2 sees 518 pixels a side, which costs a second a picture here.
    photos = PHOTOS[:1] if "dinov2" in architecture else PHOTOS
    with torch.inference_mode():
        expected = bare(torch.stack([transform(photo) for photo in photos]))
    spec = f"timm:{architecture}@{file}"
    check_encoder(spec, "image")
    encoder = load_encoder(spec, "image", Runtime(device="cpu", batch_size=len(photos)))
    assert encoder.weights == weights_hash(spec, "image")
    if "dinov2" in architecture:
        assert np.abs(encoder.encode(photos) - unit(expected)).max() < 1e-5
        assert encoder.dimension == 384
    else:
        assert_like(encoder, photos, expected)


def test_a_checkpoint_of_another_architecture_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "other.safetensors"
    save_file({"conv.weight": torch.zeros(3)}, file)
    with pytest.raises(WeightsMissing, match=r"is no checkpoint of test_resnet\.r160_in1k: it lacks"):
        load_encoder(f"timm:test_resnet.r160_in1k@{file}", "image", RUNTIME)


@pytest.mark.slow
def test_open_clip_by_a_local_checkpoint(tmp_path: Path) -> None:
    import open_clip

    (tmp_path / "ViT-tiny.json").write_text(json.dumps(TINY_CLIP), encoding="utf-8")
    open_clip.add_model_config(tmp_path)
    torch.manual_seed(0)
    model, _, transform = open_clip.create_model_and_transforms("ViT-tiny")
    tokenizer = open_clip.get_tokenizer("ViT-tiny")
    for name in ("weights.pt", "weights.safetensors"):
        file = tmp_path / name
        torch.save(model.state_dict(), file) if name.endswith("pt") else save_file(model.state_dict(), file)
        spec = f"open_clip:ViT-tiny/{file}"
        settings = EmbedSettings(image_primary=spec, sentence_primary=spec, shared=spec)
        check_available(settings)
        images, texts = load_encoder(spec, "image", RUNTIME), load_encoder(spec, "text", RUNTIME)
        assert images.weights == weights_hash(spec, "image")
        with torch.inference_mode():
            expected = model.eval().encode_image(torch.stack([transform(photo) for photo in PHOTOS]))
            assert_like(images, PHOTOS, expected)
            assert_like(texts, SENTENCES, model.encode_text(tokenizer(SENTENCES)))


def test_clip_preprocessing_is_the_published_one(tmp_path: Path) -> None:
    """Bicubic to the shorter side, centre crop, CLIP's mean and deviation (openai/CLIP, clip.py)."""
    import open_clip

    (tmp_path / "ViT-tinier.json").write_text(json.dumps(TINY_CLIP), encoding="utf-8")
    open_clip.add_model_config(tmp_path)
    model, _, _ = open_clip.create_model_and_transforms("ViT-tinier")
    torch.save(model.state_dict(), tmp_path / "weights.pt")
    tower: Any = load_encoder(f"open_clip:ViT-tinier/{tmp_path / 'weights.pt'}", "image", RUNTIME).tower
    photo = PHOTOS[0]
    scale = 32 / min(photo.size)
    small = photo.resize((int(photo.width * scale), int(photo.height * scale)), Image.Resampling.BICUBIC)
    left = round((small.width - 32) / 2)
    crop = np.asarray(small.crop((left, 0, left + 32, 32)), dtype=np.float64) / 255
    expected = (crop - [0.48145466, 0.4578275, 0.40821073]) / [0.26862954, 0.26130258, 0.27577711]
    assert np.abs(tower.transform(photo) - expected.transpose(2, 0, 1)).max() < 1e-5


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("hf:/nowhere/bge", "there is no /nowhere/bge"),
        ("timm:no_such_model", "timm knows no model 'no_such_model'"),
        ("timm:test_resnet.r160_in1k@/nowhere/x.pt", "there is no /nowhere/x.pt"),
        ("open_clip:ViT-Z-99/openai", "open_clip knows no model 'ViT-Z-99'"),
        ("open_clip:ViT-B-32/nobody", "open_clip has no weights 'nobody' for ViT-B-32, only: "),
        ("open_clip:ViT-B-32", "name the weights"),
        ("open_clip:ViT-B-32//nowhere/x.pt", "there is no /nowhere/x.pt"),
    ],
)
def test_names_that_lead_nowhere_are_one_line(name: str, says: str) -> None:
    for ask in (check_encoder, weights_hash, load_encoder):
        with pytest.raises(WeightsMissing) as caught:
            ask(name, "image")
        assert says in str(caught.value) and str(caught.value).startswith(name) and "\n" not in str(caught.value)


def test_a_folder_without_weights_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(WeightsMissing, match=r"holds no config\.json"):
        check_encoder(f"hf:{tmp_path}", "text")
    (tmp_path / "config.json").write_text("{}", encoding="utf-8")
    with pytest.raises(WeightsMissing, match="holds no weights"):
        check_encoder(f"hf:{tmp_path}", "text")


class Hub(http.server.BaseHTTPRequestHandler):
    """The two calls of the hub's protocol that a download makes: the listing and the files."""

    root: Path
    commit = "0" * 40

    def log_message(self, *_: Any) -> None:
        """Nothing on the test's output."""

    def do_HEAD(self) -> None:
        self.answer(body=False)

    def do_GET(self) -> None:
        self.answer(body=True)

    def answer(self, body: bool) -> None:
        path = self.path.partition("?")[0]
        kind = "application/octet-stream"
        if path.startswith("/api/models/tiny/bert"):
            names = sorted(file.name for file in self.root.iterdir() if file.is_file())
            listing = {"id": "tiny/bert", "sha": self.commit, "siblings": [{"rfilename": name} for name in names]}
            data, kind = json.dumps(listing).encode(), "application/json"
            if "/tree/" in path:
                data = json.dumps([{"type": "file", "path": name, "size": 1, "oid": name} for name in names]).encode()
        elif path.startswith("/tiny/bert/resolve/") and (self.root / path.split("/")[5]).is_file():
            data = (self.root / path.split("/")[5]).read_bytes()
        else:
            self.send_response(404)
            self.send_header("X-Error-Code", "EntryNotFound")
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        self.send_response(200)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(data)))
        self.send_header("ETag", f'"{len(data):x}{sum(data):x}"')
        self.send_header("X-Repo-Commit", self.commit)
        self.end_headers()
        if body:
            self.wfile.write(data)


@pytest.fixture
def hub(bert: Path) -> Iterator[str]:
    handler = type("BertHub", (Hub,), {"root": bert})
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_address[1]}"
    server.shutdown()
    server.server_close()
    thread.join()


def elsewhere(program: str, home: Path, **environment: str) -> dict[str, Any]:
    """Run in a fresh process, as huggingface_hub reads its environment once; its last line is JSON."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("HF_")}
    done = subprocess.run(
        [sys.executable, "-c", program],
        cwd=REPOSITORY,
        env={**kept, "HF_HOME": str(home), "HF_HUB_DISABLE_TELEMETRY": "1", **environment},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


USE = """
import json
from stages.encoders.availability import check_encoder, weights_hash
from stages.encoders.registry import load_encoder
check_encoder("hf:tiny/bert", "text")
vector = load_encoder("hf:tiny/bert", "text").encode(["a cat"])[0]
print(json.dumps({"weights": weights_hash("hf:tiny/bert", "text"), "vector": vector.tolist()}))
"""
REFUSED = """
import json, time
from stages.encoders.protocol import WeightsMissing
from stages.encoders.availability import check_encoder, weights_hash
import huggingface_hub, open_clip, timm, transformers
found = {}
for name in ("hf:BAAI/bge-base-en-v1.5", "timm:vit_base_patch14_dinov2.lvd142m", "open_clip:ViT-B-32/openai"):
    for ask in (check_encoder, weights_hash):
        start = time.monotonic()
        try:
            ask(name, "text" if name.startswith("hf") else "image")
        except WeightsMissing as error:
            found[name] = [str(error), time.monotonic() - start]
print(json.dumps(found))
"""


@pytest.mark.slow
def test_a_hub_name_is_downloaded_once_and_then_works_offline(bert: Path, hub: str, tmp_path: Path) -> None:
    online = elsewhere(USE, tmp_path, HF_ENDPOINT=hub)
    assert len(online["vector"]) == 32
    assert elsewhere(USE, tmp_path, HF_ENDPOINT=hub, HF_HUB_OFFLINE="1") == online


@pytest.mark.slow
def test_without_a_network_hub_names_are_one_line_soon(tmp_path: Path) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        endpoint = f"http://127.0.0.1:{free.getsockname()[1]}"
        found = elsewhere(REFUSED, tmp_path, HF_ENDPOINT=endpoint)
    assert len(found) == 3
    for name, (said, seconds) in found.items():
        assert said.startswith(f"{name}: ") and "\n" not in said
        assert "hf download" in said and "local path" in said
        assert seconds < 10
