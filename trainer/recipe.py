"""The recipe: everything that steers a run, as one strict YAML file.

Every field says its unit and where its default comes from; "design" means this project's own choice, "paper"
means Chow et al., "Unified Generative and Discriminative Training for Multi-modal LLMs", NeurIPS 2024.
"""

from __future__ import annotations

import difflib
import os
import reprlib
from importlib import resources
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from schemas.strict_yaml import NotYaml, load_yaml
from trainer.errors import UserError


class Section(BaseModel):
    """Base of every section: unknown fields, silent coercions, infinities and later changes are errors."""

    model_config = ConfigDict(
        strict=True, extra="forbid", frozen=True, use_attribute_docstrings=True, allow_inf_nan=False
    )


class DataRecipe(Section):
    """How documents become packs."""

    document_tokens: int = Field(default=512, ge=16)
    """Longest training sequence in tokens. A longer document is cut into consecutive segments at slice borders;
    each segment is trained once an epoch. Default: design, a page of text with a few images."""

    pack_tokens: int = Field(default=2048, ge=16)
    """Tokens in one pack (one microbatch), at least `document_tokens`. Default: design, fits 8 GB with 135M."""

    packs_per_step: int = Field(default=1, ge=1)
    """Packs in one optimizer step over all ranks; a multiple of every world size you mean to use. Default: one."""

    views: int = Field(default=2, ge=0)
    """Pairs of bare slices (an image, its matched sentence) drawn per segment as sequences of their own, so that
    the head sees what retrieval queries look like. Default: design."""

    only_with_images: bool = False
    """Train only on segments that show an image: where time is short, on what an image-text model is about.
    Default: false, every segment."""

    workers: int = Field(default=0, ge=0)
    """Processes that decode and collate; 0 does it in the training process. Default: 0, best on two cores."""

    strict: bool = False
    """Stop at the first unreadable image or label vector instead of training on a grey image, or without the vector,
    counted and named. Default: go on."""


class TextRecipe(Section):
    """The language model."""

    source: str = "smollm2"
    """"smollm2" (the SmolLM2-135M-Instruct asset), "scratch" (random weights, byte tokenizer) or a folder that
    `transformers` can load. Default: the small model that the package index carries."""

    hidden_size: int = Field(default=64, ge=8)
    """Width of a from-scratch model; ignored otherwise. Default: seconds on a CPU."""

    layers: int = Field(default=2, ge=1)
    """Layers of a from-scratch model; ignored otherwise. Default: seconds on a CPU."""

    heads: int = Field(default=4, ge=1)
    """Attention heads of a from-scratch model; ignored otherwise. Default: heads of 16."""

    train: bool = False
    """Train all the weights of the language model, not only LoRA's. Default: false, the paper freezes them."""


class VisionRecipe(Section):
    """The vision tower."""

    tower: Literal["efficientnet-lite0", "patches"] = "efficientnet-lite0"
    """"efficientnet-lite0" (asset, 49 tokens of 1280) or "patches" (random convolution, for tests)."""

    image_size: int = Field(default=224, ge=16)
    """Side of the square the image is resized to, in pixels. Default: EfficientNet-Lite0's own."""

    train: bool = False
    """Train the tower. Default: false, the paper freezes it; a frozen tower stays in eval mode."""

    cache_features: bool = True
    """Run a frozen tower once per distinct image and keep float16 features beside the run. Default: true."""


class ConnectorRecipe(Section):
    """From tower tokens to decoder embeddings."""

    grid: int = Field(default=4, ge=1)
    """Side of the token grid an image is pooled to; an image costs grid squared tokens. Default: 16 tokens."""

    hidden_size: int = Field(default=1024, ge=8)
    """Width of the MLP. Default: design."""

    train: bool = True
    """Train the connector. Default: true; the paper freezes one that VILA had trained."""


class LoraRecipe(Section):
    """Low-rank adapters on the decoder (Hu et al. 2021), by peft."""

    rank: int = Field(default=16, ge=0)
    """Rank; 0 for no adapters. Default: design for 135M; the paper has 128 on 7B."""

    alpha: int = Field(default=32, gt=0)
    """Scale numerator, the update is alpha / rank * BA. Default: twice the rank, the paper's ratio."""

    dropout: float = Field(default=0.0, ge=0, lt=1)
    """Dropout on the adapters' input, probability. Default: none."""

    targets: tuple[str, ...] = Field(default=("q_proj", "v_proj"), strict=False)
    """Names of the linear layers that get adapters. Default: the paper's W_q and W_v."""


class ModelRecipe(Section):
    """What is trained."""

    text: TextRecipe = TextRecipe()
    """The language model."""
    vision: VisionRecipe = VisionRecipe()
    """The vision tower."""
    connector: ConnectorRecipe = ConnectorRecipe()
    """The connector."""
    lora: LoraRecipe = LoraRecipe()
    """The adapters."""
    retrieval_dim: int = Field(default=1024, ge=2)
    """Dimensions of the retrieval vector. Default: design; the paper does not say."""


class ObjectiveRecipe(Section):
    """L = L_g + alpha * L_d; every choice the paper leaves open is a field."""

    alpha: float = Field(default=1.0, ge=0)
    """Weight of the structure loss; 0 trains the language model alone. Default: design, with reduction mean."""

    num_positions: int = Field(default=4, ge=1)
    """Slice ends per segment that enter the structure loss, always the last one among them. Default: design."""

    span: Literal["window", "prefix"] = "window"
    """Label sequence of a position: its last `window` slices, or all so far (paper). Default: window, since labels
    from prefixes hardly see content."""

    window: int = Field(default=6, ge=1)
    """Slices in a window; also the length in sigma "global". Default: design, measured AUC .92."""

    kernel: Literal["gak", "soft_dtw", "mean_similarity", "shuffled"] = "gak"
    """gak (paper), soft_dtw (Gaussian local kernel), mean_similarity (mean cosine of slice pairs), shuffled (gak on
    slices swapped within their modality, anew every step: the negative control)."""

    label_normalization: Literal["cosine", "path_mean", "none"] = "cosine"
    """cosine: K / sqrt(Kxx Kyy), clamped to [0, 1]; path_mean: K over its value at distance zero, which is the
    Delannoy number unless a band or weights leave out paths; none: raw K. Default: cosine."""

    sigma: Literal["global", "pair", "paper"] = "global"
    """Bandwidth: global delta * sqrt(window); pair delta * sqrt((N + M) / 2) with the slices of the whole documents
    (1 for a bare slice); paper the same of the two label sequences. Default: global, one self table a sequence."""

    delta: float = Field(default=1.0, gt=0)
    """Bandwidth factor. Default: 1.0, the median heuristic gives 1.0 to 1.3 on unit vectors; the paper has none."""

    band: int = Field(default=0, ge=0)
    """Sakoe-Chiba band |i - j| <= band, widened by the difference of the lengths so that the end stays reachable;
    0 for none. Default: none."""

    triangular: int = Field(default=0, ge=0)
    """Cuturi's triangular weights (1 - |i - j| / T)+ on the Gaussian, before the local kernel; 0 for none.
    Default: none."""

    same_document_rule: Literal["one", "gak", "ignore"] = "one"
    """Label of two positions of one document: 1 (paper), the kernel, or leave the pair out."""

    single_slices: Literal["cosine", "document"] = "cosine"
    """Two label sequences of one slice each in one document (two bare slices, mostly): their cosine, as between
    documents, or what same_document_rule says. Default: cosine, the paper's rule for single slices."""

    unlike_lengths: Literal["ignore", "label"] = "ignore"
    """Pairs whose label sequences differ in length: left out of the loss, or labelled. Only for span window; with
    prefix every pair is labelled. Default: ignore (a window meets windows of like length)."""

    reduction: Literal["mean", "mean_row"] = "mean"
    """mean: over all pairs that count; mean_row: divided by n only (paper), which grows with n. Default: mean."""


class OptimizerRecipe(Section):
    """AdamW with linear warm-up and cosine decay."""

    steps: int = Field(default=100, ge=1)
    """Optimizer steps of the whole run. Default: design."""

    learning_rate: float = Field(default=1e-4, gt=0)
    """Peak rate of pretrained weights and adapters. Default: the paper's 1e-4."""

    new_learning_rate: float = Field(default=1e-3, gt=0)
    """Peak rate of randomly started modules (connector, retrieval head). Default: LLaVA's projector stage."""

    warmup: float = Field(default=0.03, ge=0, le=1)
    """Share of the steps spent warming up. Default: the paper's .03."""

    weight_decay: float = Field(default=0.0, ge=0)
    """Decoupled decay of matrices. Default: 0, LLaVA's."""

    clip: float = Field(default=1.0, gt=0)
    """Global gradient norm above which gradients are scaled down. Default: usual for language models."""


class CheckpointRecipe(Section):
    """When a run is saved."""

    every: int = Field(default=50, ge=1)
    """Steps between checkpoints; one is always written at the end and on SIGTERM. Default: design."""

    keep: int = Field(default=2, ge=1)
    """Newest checkpoints kept; two, so that a corrupt newest one has something to fall back to."""


class EvaluationRecipe(Section):
    """What is measured on held-out documents, before and after training (and between, with `every`)."""

    every: int = Field(default=0, ge=0)
    """Steps between evaluations during the run; 0 for only before and after. Default: 0."""

    tokens: int = Field(default=8192, ge=1)
    """Held-out tokens for perplexity, whole segments in document order. Default: design."""

    queries: int = Field(default=512, ge=1)
    """Most retrieval queries (and candidates) per direction. Default: design."""

    minimum_queries: int = Field(default=30, ge=2)
    """Below this many queries no claim is made, whatever the numbers. Default: design."""

    examples: int = Field(default=8, ge=0)
    """Retrieval examples kept per direction for the report. Default: design."""

    generated_tokens: int = Field(default=40, ge=1)
    """New tokens generated (greedily) for one held-out picture. Default: design."""


class ParallelRecipe(Section):
    """Ranks, threads and precision."""

    precision: Literal["auto", "float32", "bfloat16"] = "auto"
    """Compute type; auto is bfloat16 autocast where the GPU or CPU computes it natively (measured twice as fast on
    AVX512-BF16), float32 elsewhere. Weights, labels and similarities are float32 or better everywhere."""

    threads: int = Field(default=0, ge=0)
    """Torch threads per rank; 0 divides the machine's cores among the ranks. Default: 0."""

    timeout: float = Field(default=1800.0, gt=0)
    """Seconds a collective may wait for another rank. Default: torch's half hour."""


class LogRecipe(Section):
    """What a run shows."""

    every: int = Field(default=1, ge=1)
    """Steps between lines of metrics.jsonl and TensorBoard points. Default: every step."""

    tensorboard: bool = True
    """Write TensorBoard event files. Default: true."""


class Recipe(Section):
    """One training run."""

    name: str = Field(min_length=1)
    """What the run is called in logs and reports."""
    corpus: str = ""
    """The corpus folder (OUT of the build; OUT/latest names the version) or one version's folder: the shards that
    its manifest lists, their bytes checked once. A folder that holds shards itself, without a manifest, is taken as
    it is."""
    out: str = "out/run"
    """The run folder: checkpoints, metrics, evaluation, exported model."""
    seed: int = Field(default=0, ge=0, lt=2**63)
    """Seeds weights, plan, positions and dropout; what a torch generator takes. Default: 0."""
    data: DataRecipe = DataRecipe()
    """How documents become packs."""
    model: ModelRecipe = ModelRecipe()
    """What is trained."""
    objective: ObjectiveRecipe = ObjectiveRecipe()
    """The losses."""
    optimizer: OptimizerRecipe = OptimizerRecipe()
    """How weights move."""
    checkpoint: CheckpointRecipe = CheckpointRecipe()
    """When the run is saved."""
    evaluation: EvaluationRecipe = EvaluationRecipe()
    """What is measured."""
    parallel: ParallelRecipe = ParallelRecipe()
    """Ranks, threads, precision."""
    log: LogRecipe = LogRecipe()
    """What the run shows."""


def find_recipe(path: str) -> tuple[str, str]:
    """(where, YAML text) of a recipe: the path if it exists, else the packaged recipe of that name.

    Raises UserError naming the packaged recipes when neither is there, and for a file that is not UTF-8 text.
    """
    # os.path takes a name that no file can have for an absent one; pathlib raises.
    if os.path.isfile(path):
        try:
            return path, Path(path).read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise UserError(f"{path} cannot be read: {error}") from None
    packaged = {entry.name: entry for entry in resources.files("recipes").iterdir() if entry.name.endswith(".yaml")}
    name = Path(path).name
    if name not in packaged and f"{name}.yaml" in packaged:
        name += ".yaml"
    if name not in packaged:
        raise UserError(f"recipe {path!r} does not exist; packaged recipes: {', '.join(sorted(packaged))}")
    return f"recipes/{name} (packaged)", packaged[name].read_text(encoding="utf-8")


def load_recipe(path: str, overrides: tuple[str, ...] = ()) -> Recipe:
    """The recipe at `path` with `key.sub=value` overrides (values as YAML) applied, checked.

    Raises UserError in one line: missing file, not YAML, unknown field (with the nearest valid one), wrong type.
    """
    where, text = find_recipe(path)
    try:
        data = load_yaml(text)
    except NotYaml as error:
        line = f":{error.line}" if error.line else ""
        raise UserError(f"{where}{line}: not YAML: {error}") from None
    if not isinstance(data, dict):
        raise UserError(f"{where} must be a mapping of recipe fields")
    for override in overrides:
        _apply(data, override)
    try:
        recipe = Recipe.model_validate(data)
    except ValidationError as error:
        raise UserError(f"{where}: {_explain(error)}") from None
    if recipe.data.pack_tokens < recipe.data.document_tokens:
        raise UserError(
            f"{where}: data.pack_tokens {recipe.data.pack_tokens} is below data.document_tokens "
            f"{recipe.data.document_tokens}; a pack must hold the longest segment"
        )
    return recipe


def check_ranks(recipe: Recipe, world: int) -> None:
    """UserError when a step's packs cannot be shared out evenly among `world` ranks."""
    packs = recipe.data.packs_per_step
    if packs % world:
        raise UserError(
            f"data.packs_per_step {packs} is not a multiple of {world} ranks; "
            f"start as many ranks as divide it, or pass --set data.packs_per_step={-(-packs // world) * world}"
        )


def _apply(data: dict[str, Any], override: str) -> None:
    key, equals, value = override.partition("=")
    if not equals or not key:
        raise UserError(f"--set {override!r}: write it as key=value, e.g. optimizer.steps=20")
    *parents, last = key.split(".")
    for parent in parents:
        data = data.setdefault(parent, {})
        if not isinstance(data, dict):
            raise UserError(f"--set {override!r}: {parent!r} is not a section")
    try:
        data[last] = load_yaml(value)
    except NotYaml as error:
        raise UserError(f"--set {_short(override)}: the value is not YAML: {error}") from None


def _short(text: str) -> str:
    return text if len(text) <= 80 else f"{text[:77]}..."


def _explain(error: ValidationError) -> str:
    """The first problem of a validation error in one line, with the nearest valid field for an unknown one."""
    first = error.errors()[0]
    path = [str(part) for part in first["loc"]]
    where = ".".join(path)
    if first["type"] != "extra_forbidden":
        return f"{where}: {first['msg'][0].lower() + first['msg'][1:]}, got {_short(reprlib.repr(first.get('input')))}"
    section: type[BaseModel] = Recipe
    for part in path[:-1]:
        annotation = section.model_fields[part].annotation
        if isinstance(annotation, type) and issubclass(annotation, BaseModel):
            section = annotation
    names = list(section.model_fields)
    near = difflib.get_close_matches(path[-1], names, n=1, cutoff=0.5)
    hint = f"did you mean {'.'.join([*path[:-1], near[0]])}?" if near else f"fields here: {', '.join(names)}"
    return f"unknown field {where}; {hint}"
