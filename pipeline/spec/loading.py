"""The spec: one YAML file says what a corpus is. `python -m pipeline.spec schema` prints its JSON Schema."""

from __future__ import annotations

import difflib
import importlib.resources
import json
import os
import reprlib
import types
import typing
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import typer
import yaml
from pydantic import BaseModel, Field, ValidationError

from pipeline.engine.mistake import UserMistake
from pipeline.spec.sections import (
    ExpectSettings,
    OutputSettings,
    PricesSettings,
    ReportSettings,
    ResourcesSettings,
    ScheduleSettings,
    Source,
)
from schemas.strict_yaml import NotYaml, load_yaml
from stages.dedup.near import DedupSettings
from stages.encoders.embed import EmbedSettings
from stages.extract import ExtractSettings
from stages.filter.settings import FilterSettings
from stages.images.decode import ImagesSettings
from stages.mining.mine import MineSettings
from stages.pairing.pair import PairSettings
from stages.row_function import Settings
from stages.shards.rows import ShardSettings
from stages.web.settings import CrawlSettings


class Spec(Settings):
    """A corpus: what it is made from, by which rules, and what comes out."""

    name: str = Field(pattern=r"^[a-z0-9][a-z0-9_-]{0,62}$")
    """Short name of the corpus: lower-case letters, digits, - and _."""
    output: OutputSettings
    """Where the corpus lies."""
    source: Source
    """Where the pages come from."""
    crawl: CrawlSettings = CrawlSettings()
    """How pages and images are fetched."""
    extract: ExtractSettings = ExtractSettings()
    """How a page becomes text and images in reading order."""
    dedup: DedupSettings = DedupSettings()
    """What counts as the same page, text, paragraph or image."""
    filter: FilterSettings = FilterSettings()
    """What a paragraph, an image and a document must be like."""
    images: ImagesSettings = ImagesSettings()
    """How pictures are decoded, resized and stored."""
    embed: EmbedSettings = EmbedSettings()
    """Which frozen encoders give every slice its two vectors."""
    pair: PairSettings = PairSettings()
    """Which sentence an image is matched to."""
    mine: MineSettings = MineSettings()
    """Which hard negatives a slice gets."""
    shard: ShardSettings = ShardSettings()
    """How the corpus is cut into files."""
    report: ReportSettings = ReportSettings()
    """The HTML report."""
    expect: ExpectSettings = ExpectSettings()
    """What the result must be like."""
    resources: ResourcesSettings = ResourcesSettings()
    """What a build may use."""
    prices: PricesSettings = PricesSettings()
    """What it costs."""
    schedule: ScheduleSettings | None = None
    """When Airflow builds it again. Default: ours, when somebody asks for it."""


def packaged() -> list[str]:
    """File names of the specs that come with the package."""
    folder = importlib.resources.files("specs")
    return sorted(entry.name for entry in folder.iterdir() if entry.name.endswith(".yaml"))


def find(path: str) -> tuple[str, str]:
    """(name for messages, text) of a spec file; a path that does not exist is looked up among the packaged ones."""
    file = Path(path)
    # os.path takes a name that is too long for a file for an absent one; pathlib raises.
    if os.path.isfile(path):
        try:
            return path, file.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise UserMistake(f"{path}: cannot be read: {error}") from None
    name = file.name if file.suffix == ".yaml" else f"{file.name}.yaml"
    if name in packaged() and str(file.parent) in (".", "specs"):
        return f"packaged {name}", importlib.resources.files("specs").joinpath(name).read_text(encoding="utf-8")
    raise UserMistake(f"{path}: no such file, nor a packaged spec (there are {', '.join(packaged())})")


def parse(label: str, text: str, overrides: Sequence[str] = ()) -> Spec:
    """A validated spec from YAML text and key=value overrides; UserMistake names the field and the remedy."""
    try:
        data = load_yaml(text)
    except NotYaml as error:
        where = f":{error.line}" if error.line else ""
        raise UserMistake(f"{label}{where}: not YAML: {error}") from None
    if not isinstance(data, dict):
        raise UserMistake(f"{label}: a spec is a mapping of sections, this is {type(data).__name__}")
    for override in overrides:
        _set(data, override)
    try:
        return Spec.model_validate(data)
    except ValidationError as error:
        raise UserMistake(f"{label}: {_explain(error, Spec)}") from None


def load(path: str, overrides: Sequence[str] = ()) -> Spec:
    """The spec at a path, or a packaged one by name."""
    label, text = find(path)
    return parse(label, text, overrides)


def _set(data: dict[str, Any], override: str) -> None:
    name, mark, value = override.partition("=")
    keys = name.strip().split(".")
    if not mark or not all(keys):
        raise UserMistake(f"--set {override}: write it as section.field=value")
    try:
        parsed = load_yaml(value)
    except NotYaml as error:
        raise UserMistake(f"--set {_short(override)}: the value is not YAML: {error}") from None
    place = data
    models: list[type[BaseModel]] = [Spec]
    for key in keys[:-1]:
        fields = [model.model_fields[key] for model in models if key in model.model_fields]
        if key not in place:
            # One end of a bound is set: the other keeps its default.
            default = fields[0].get_default() if len(fields) == 1 else None
            place[key] = default.model_dump(mode="json") if isinstance(default, BaseModel) else {}
        place = place[key]
        if not isinstance(place, dict):
            raise UserMistake(f"--set {override}: {key} is a value, not a section")
        models = [inner for field in fields for inner in _models(field.annotation)]
    place[keys[-1]] = parsed


def _models(annotation: Any) -> list[type[BaseModel]]:
    """Models inside an annotation, through unions, lists and Annotated."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    if typing.get_origin(annotation) in (typing.Union, types.UnionType, Annotated, list, dict):
        return [model for each in typing.get_args(annotation) for model in _models(each)]
    return []


def _fields_at(location: Sequence[str | int], model: type[BaseModel]) -> list[str]:
    """Names that would be valid where an unknown field stands."""
    models = [model]
    for step in location[:-1]:
        following = [
            inner
            for each in models
            if isinstance(step, str) and step in each.model_fields
            for inner in _models(each.model_fields[step].annotation)
        ]
        # A discriminator's tag is a step of its own; it names one member of the union.
        tagged = [
            each
            for each in models
            if "kind" in each.model_fields and str(step) in str(each.model_fields["kind"].annotation)
        ]
        models = following or tagged or models
    return sorted({name for each in models for name in each.model_fields})


def _explain(error: ValidationError, model: type[BaseModel]) -> str:
    """The first fault as one line."""
    faults = error.errors()
    # An unknown name explains a missing one: it is most often its misspelling.
    fault = next((each for each in faults if each["type"] == "extra_forbidden"), faults[0])
    kinds = {"site", "urls", "html", "warc", "documents"}
    location = [
        step for i, step in enumerate(fault["loc"]) if not (i == 1 and step in kinds and fault["loc"][0] == "source")
    ]
    name = ".".join(str(step) for step in location) or "spec"
    more = f" ({len(faults) - 1} more)" if len(faults) > 1 else ""
    if name in _GONE:
        return f"{name}: {_GONE[name]}{more}"
    if fault["type"] == "extra_forbidden":
        valid = _fields_at(fault["loc"], model)
        near = difflib.get_close_matches(str(fault["loc"][-1]), valid, 1, cutoff=0.5)
        hint = f"did you mean {near[0]!r}?" if near else f"valid here: {', '.join(valid)}"
        return f"{name}: unknown field; {hint}{more}"
    if fault["type"] == "missing":
        return f"{name}: is required{more}"
    if fault["type"] == "string_type" and isinstance(fault.get("input"), bool):
        # Norwegian is the best known victim.
        return f'{name}: YAML reads a bare no, off, yes or on as false or true: write it in quotes, as in "no"{more}'
    return f"{name}: {fault['msg'].removeprefix('Value error, ')}, got {_short(_REPR.repr(fault.get('input')))}{more}"


# Fields of earlier releases, and what to do about them.
_GONE = {"output.partitions": "leave it out: tables are cut by bytes and processors, and no longer by the spec"}


def _short(text: str) -> str:
    return text if len(text) <= 60 else f"{text[:57]}..."


# Aliases make small texts of enormous values.
_REPR = reprlib.Repr()
_REPR.maxlevel, _REPR.maxstring, _REPR.maxlong, _REPR.maxother = 2, 100, 100, 100


app = typer.Typer(
    add_completion=False, no_args_is_help=True, help="Look at specs: their schema, and whether one is valid."
)


@app.command()
def schema() -> None:
    """Print the JSON Schema of a spec: every field with its unit, default and where the default comes from."""
    print(json.dumps(Spec.model_json_schema(), indent=2))


@app.command()
def show(
    spec: Annotated[str, typer.Argument(help="YAML file, or the name of a packaged spec.")],
    set_: Annotated[list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Override a field.")] = None,
) -> None:
    """Validate a spec and print it with every default filled in."""
    print(yaml.safe_dump(load(spec, set_ or []).model_dump(mode="json"), sort_keys=False), end="")
