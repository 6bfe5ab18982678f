"""Embeddings: each distinct image and sentence into its two vectors, once (schemas/embedding.py)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa
from PIL import Image
from pydantic import Field, model_validator

from pictures.decoding import PILLOW_PIXELS, decode, one_line
from schemas.embedding import VECTOR
from stages.encoders.availability import check_encoder, is_here, weights_hash
from stages.encoders.names import libraries, parse
from stages.encoders.pixels import packed, tower_name, unpacked
from stages.encoders.protocol import Encoder, Floats, Modality, Precision, WeightsMissing
from stages.encoders.runtime import Runtime
from stages.encoders.transforms import load_transform
from stages.encoders.weight_files import hash_of
from stages.row_function import ERROR, CannotRun, Settings

# What the image towers see: an array of each, as an .npy file; `shared` is null where one tower serves both.
PREPARED = pa.schema([pa.field("primary", pa.large_binary()), pa.field("shared", pa.large_binary()), ERROR])
OUTPUT = pa.schema([pa.field("primary", VECTOR), pa.field("shared", VECTOR), ERROR])
# Blocks of the fixed shape a call: sentences fall into buckets by length, and each bucket's last block is part-filled.
BLOCKS = 16


class EmbedSettings(Settings):
    """Which encoders; the spec's `embed:` section.

    The defaults need no network beyond the package index (`python -m assets fetch --group encoders`). The encoders of
    the Sugar paper are `hf:facebook/dinov2-base`, `hf:BAAI/bge-base-en-v1.5` and `open_clip:ViT-L-14/openai`.
    """

    image_primary: str = "efficientnet_lite0"
    """Vectors that compare images with images: efficientnet_lite0, timm:NAME, timm:NAME@/path/to/weights,
    hf:NAME_OR_FOLDER (its CLS token) or open_clip:NAME/PRETRAINED. Default: ours, an image tower that the package index
    has; the Sugar paper's is DINOv2-base."""
    sentence_primary: str = "minilm"
    """Vectors that compare sentences with sentences: minilm, hf:NAME_OR_FOLDER (pooled as its sentence-transformers
    files say, else CLS) or open_clip:NAME/PRETRAINED. Default: ours, a sentence tower that the package index has; the
    Sugar paper's is BGE-base."""
    shared: str = "lit"
    """Vectors that compare images with sentences: open_clip:NAME/PRETRAINED (a tag or a path), lit (small heads that
    were trained for figures and drawings) or conse (no training: good on photographs alone). Default: ours, needs no
    model hub; the Sugar paper's and MMC4's is CLIP ViT-L/14."""
    image_batch_size: int = Field(default=8, ge=1)
    """Images a forward pass, always exactly so many; take 256 on a GPU. Default: ours, the fastest of those tried on
    one CPU core."""
    sentence_batch_size: int = Field(default=32, ge=1)
    """Sentences a forward pass, always exactly so many; take 1024 on a GPU. Default: ours, the fastest of those tried
    on one CPU core."""
    device: str = Field(default="auto", pattern=r"^(auto|cpu|mps|(cuda|xpu)(:[0-9]+)?)$")
    """torch device; auto takes a GPU when there is one. Vectors of different devices differ in their last bits.
    Default: ours, the same spec runs anywhere."""
    precision: Precision = "float32"
    """Type of weights and activations: bfloat16 or float16 halve the time on hardware that has them. Default: ours, as
    every processor has it and nothing is lost."""

    @model_validator(mode="after")
    def known_encoders(self) -> EmbedSettings:
        """Each name must stand for an encoder of its modality, and `shared` for one of both."""
        parse(self.image_primary, "image")
        parse(self.sentence_primary, "text")
        for modality in MODALITIES:
            parse(self.shared, modality)
        if self.shared.startswith("hf:"):
            raise ValueError(f"shared is {self.shared!r}, an encoder of one modality; take open_clip:, lit or conse")
        return self

    def of(self, modality: Modality) -> TowerSettings:
        """The part that steers one modality: the key of its vectors does not change with the other's encoders."""
        return TowerSettings(
            primary=self.image_primary if modality == "image" else self.sentence_primary,
            shared=self.shared,
            forward_size=self.image_batch_size if modality == "image" else self.sentence_batch_size,
            device=self.device,
            precision=self.precision,
        )


MODALITIES: tuple[Modality, Modality] = ("image", "text")


class TowerSettings(Settings):
    """All that steers the vectors of one modality."""

    primary: str
    """Encoder within the modality, by EmbedSettings' names."""
    shared: str
    """Encoder across modalities."""
    forward_size: int
    """Rows a forward pass."""
    device: str
    """torch device or auto."""
    precision: Precision
    """Of weights and activations."""


def encoders_of(settings: EmbedSettings) -> list[tuple[str, Modality]]:
    """Encoders that a spec names, each with what it reads."""
    own: list[tuple[str, Modality]] = [(settings.image_primary, "image"), (settings.sentence_primary, "text")]
    return own + [(settings.shared, modality) for modality in MODALITIES]


def to_download(settings: EmbedSettings) -> list[str]:
    """Names of the encoders whose weights are not on this machine yet; each as check_available has found it."""
    return list(dict.fromkeys(name for name, modality in encoders_of(settings) if not is_here(name, modality)))


def check_available(settings: EmbedSettings) -> None:
    """WeightsMissing, in one line for all of them, unless each encoder's weights are there or on a hub that answers."""
    lines: list[str] = []
    for name, modality in encoders_of(settings):
        try:
            check_encoder(name, modality)
        except WeightsMissing as error:
            lines.append(str(error))
    if lines:
        raise WeightsMissing("; ".join(dict.fromkeys(lines)))


class EmbedImages:
    """PreparedFunction `embed_image`: stored bytes (`body`) into `primary` and `shared`."""

    name = "embed_image"
    output = OUTPUT
    limits = None  # it sees decoded pictures and split sentences

    def __init__(self, settings: EmbedSettings) -> None:
        self.settings = settings.of("image")

    @property
    def libraries(self) -> tuple[str, ...]:
        """Distributions whose version shapes the result."""
        return libraries_of(self.settings, "numpy", "pillow", "simplejpeg")

    @property
    def weights(self) -> str:
        """Hash over the weights of both encoders; WeightsMissing when they cannot be had."""
        return weights_of(self.settings, "image")

    @property
    def batch_size(self) -> int:
        """Rows it wants at a time."""
        return self.settings.forward_size * BLOCKS

    def __call__(self, rows: pa.Table) -> pa.Table:
        """`body` (binary, may be null) in, OUTPUT out, in order."""
        return self.forward(self.prepare(rows))

    def prepare(self, rows: pa.Table) -> pa.Table:
        """`body` in, PREPARED out, in order: decoded, and as the towers want it; no network is loaded."""
        transforms = [load_transform(name) for name in _towers(self.settings)]
        made: list[dict[str, Any]] = []
        for body in rows.column("body"):
            try:
                # Bounded already when they were stored; this bounds what comes another way.
                picture = Image.fromarray(decode(body.as_py() or b"", 2 * PILLOW_PIXELS).pixels)
                seen = [packed(transform(picture)) for transform in transforms]
                made.append(dict(zip(("primary", "shared"), seen, strict=False)))
            except Exception as error:
                made.append({ERROR.name: f"embed_image: {type(error).__name__}: {one_line(error)}"})
        return pa.Table.from_pylist(made, schema=PREPARED)

    def forward(self, prepared: pa.Table) -> pa.Table:
        """PREPARED in, OUTPUT out, in order."""
        seen = [
            [None if each is None else unpacked(each) for each in prepared.column(name).to_pylist()]
            for name, _ in zip(("primary", "shared"), _towers(self.settings), strict=False)
        ]
        return embed(seen, prepared.column(ERROR.name).to_pylist(), "image", self.settings)


class EmbedSentences:
    """RowFunction `embed_sentence`: `text` into `primary` and `shared`."""

    name = "embed_sentence"
    output = OUTPUT
    limits = None  # it sees decoded pictures and split sentences

    def __init__(self, settings: EmbedSettings) -> None:
        self.settings = settings.of("text")

    @property
    def libraries(self) -> tuple[str, ...]:
        """Distributions whose version shapes the result."""
        return libraries_of(self.settings, "numpy")

    @property
    def weights(self) -> str:
        """Hash over the weights of both encoders; WeightsMissing when they cannot be had."""
        return weights_of(self.settings, "text")

    @property
    def batch_size(self) -> int:
        """Rows it wants at a time."""
        return self.settings.forward_size * BLOCKS

    def __call__(self, rows: pa.Table) -> pa.Table:
        """`text` (string, may be null) in, OUTPUT out, in order."""
        texts = rows.column("text").to_pylist()
        errors = [None if text is not None else "embed_sentence: no text" for text in texts]
        return embed([texts], errors, "text", self.settings)


def libraries_of(settings: TowerSettings, *others: str) -> tuple[str, ...]:
    """Distributions of both encoders and `others`, sorted."""
    return tuple(sorted({*libraries(settings.primary), *libraries(settings.shared), *others}))


def weights_of(settings: TowerSettings, modality: Modality) -> str:
    """Hash over both encoders' weights."""
    return hash_of(weights_hash(settings.primary, modality), weights_hash(settings.shared, modality))


def _towers(settings: TowerSettings) -> list[str]:
    """Names of the image towers behind both encoders: one where they share it."""
    return list(dict.fromkeys(tower_name(name) for name in (settings.primary, settings.shared)))


def embed(
    seen: Sequence[Sequence[Any]], errors: list[str | None], modality: Modality, settings: TowerSettings
) -> pa.Table:
    """Vectors of the contents that have no error yet; an encoder that gives no vector adds one.

    `seen` is what the primary tower sees of each, then, where it sees something else, the shared one. Both encoders
    read one forward pass where they stand on the same tower.
    """
    runtime = Runtime(settings.device, settings.precision, settings.forward_size)
    primary, shared = (_loaded(name, modality, runtime) for name in (settings.primary, settings.shared))
    good = [row for row, error in enumerate(errors) if error is None]
    given = [[contents[row] for row in good] for contents in seen]
    try:
        features = primary.tower.seen(given[0])
        first = primary.vectors(features)
        second = shared.vectors(features if shared.tower is primary.tower else shared.tower.seen(given[-1]))
    except RuntimeError as error:
        # torch's, by name: what needs no torch does not wait for its import.
        if type(error).__name__ != "OutOfMemoryError":
            raise
        size = f"embed.{'image' if modality == 'image' else 'sentence'}_batch_size"
        raise CannotRun(f"{size} is {settings.forward_size}: {one_line(error)}; make it smaller") from None
    finite = np.isfinite(np.concatenate([first, second], axis=1)).all(axis=1).tolist()
    for position, row in enumerate(good):
        if not finite[position]:
            errors[row] = f"embed_{'image' if modality == 'image' else 'sentence'}: not a finite vector"
    kept = {row: position for position, row in enumerate(good) if finite[position]}
    columns = [
        as_column(vectors, kept, len(errors), encoder) for vectors, encoder in ((first, primary), (second, shared))
    ]
    return pa.table([*columns, pa.array(errors, pa.string())], schema=OUTPUT)


def _loaded(name: str, modality: Modality, runtime: Runtime) -> Encoder:
    """The encoder in place; CannotRun, as no content is to blame when a network does not load."""
    from stages.encoders.registry import load_encoder

    try:
        return load_encoder(name, modality, runtime)
    except Exception as error:
        raise CannotRun(f"embed: {name} on device {runtime.device!r}: {one_line(error)}") from None


def as_column(vectors: Floats, kept: dict[int, int], length: int, encoder: Encoder) -> pa.Array:
    """list<float16> of `length` rows: those in `kept` (row to position in `vectors`), null elsewhere."""
    values = vectors[list(kept.values())].astype(np.float16).ravel()
    sizes = np.zeros(length, dtype=np.int32)
    sizes[list(kept)] = encoder.dimension
    offsets = np.concatenate([[0], np.cumsum(sizes)]).astype(np.int32)
    missing = np.ones(length, dtype=bool)
    missing[list(kept)] = False
    return pa.ListArray.from_arrays(pa.array(offsets), pa.array(values), type=VECTOR, mask=pa.array(missing))
