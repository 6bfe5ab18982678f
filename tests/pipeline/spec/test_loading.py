"""Specs: the packaged ones, their schema, and one line for every mistake."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml
from typer.testing import CliRunner

from pipeline.engine.mistake import UserMistake
from pipeline.spec.loading import Spec, app, find, load, packaged, parse

MINIMAL = """
name: small
output: {url: out}
source: {kind: site, seeds: ["http://site.test/"]}
"""


def schema() -> dict[str, Any]:
    """What `python -m pipeline.spec schema` prints."""
    done = CliRunner().invoke(app, ["schema"])
    assert done.exit_code == 0
    parsed: dict[str, Any] = json.loads(done.stdout)
    return parsed


def test_the_schema_is_valid_and_describes_every_field() -> None:
    found = schema()
    jsonschema.Draft202012Validator.check_schema(found)
    models = [found, *found["$defs"].values()]

    def described(field: dict[str, Any]) -> bool:
        """By itself, or by what it refers to."""
        name = field.get("$ref", "").rpartition("/")[2]
        return bool(field.get("description") or found["$defs"].get(name, {}).get("description"))

    bare = [
        f"{model.get('title')}.{name}"
        for model in models
        for name, field in model.get("properties", {}).items()
        if not described(field)
    ]
    assert bare == []
    assert all(model.get("additionalProperties") is False for model in models if model.get("type") == "object")


# Who a default may be taken from. What is nobody's is "ours", with the reason.
PEERS = (
    "aiohttp", "Chromium", "datasketch", "datatrove", "img2dataset", "MMC4", "OBELICS", "Pillow", "Ray", "Scrapy",
)  # fmt: skip
ORIGIN = re.compile(rf" Default: (?:ours, (?:\S+ ){{3,}}\S+|(?:{'|'.join(PEERS)})\b.*)\.$")
UNITS = re.compile(
    r"\b(actors|attempts|bits|bytes|candidates|characters|cosine|cpus|documents|dropped items|elements|images|levels"
    r"|links|megabytes|negatives|nodes|number|pages|pixels|price|probability|quality|ratio|redirects|requests|rows|seconds"
    r"|sentences|share|statuses|unit|words|0\.\.1)\b",
    re.IGNORECASE,
)


def leaves(found: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any], bool, bool]]:
    """(Model.field, its schema, required, a number or a range of them) of every field that is no section."""
    ranges = {"Bound", "Bounds"}
    for model in [found, *found["$defs"].values()]:
        for name, field in model.get("properties", {}).items():
            target = field.get("$ref", "").rpartition("/")[2]
            if "oneOf" in field or (target and target not in ranges):
                continue
            types = {field.get("type")} | {each.get("type") for each in field.get("anyOf", ())}
            numbers = target in ranges or bool(types & {"integer", "number"})
            yield f"{model['title']}.{name}", field, name in model.get("required", ()), numbers


def test_every_default_says_where_it_comes_from() -> None:
    fields = list(leaves(schema()))
    assert len(fields) > 100
    silent = {
        name: field.get("description", "")
        for name, field, required, _ in fields
        if not required and not ORIGIN.search(" ".join(field.get("description", "").split()))
    }
    assert silent == {}
    # A required field has no default to explain.
    assert [name for name, field, required, _ in fields if required and "Default:" in field["description"]] == []
    made = {"ResourcesSettings.operators"}  # an empty mapping, which a schema does not show
    assert {name for name, field, required, _ in fields if required == ("default" in field)} == made


def test_every_number_has_a_unit() -> None:
    bare = [
        name
        for name, field, _, numbers in leaves(schema())
        if numbers and not UNITS.search(field["description"].partition("Default:")[0])
    ]
    assert bare == []


@pytest.mark.parametrize(
    ("description", "says"),
    [
        ("Words. Default: OBELICS, 4..1000.", True),
        ("Bands. Default: datatrove's 14.", True),
        ("Workers. Default: ours, what a laptop has.", True),
        ("Words; OBELICS 4..1000.", False),
        ("Words. Default: 4.", False),
        ("Words. Default: ours.", False),
        ("Words. Default: ours, a guess.", False),
        ("Words. Default: everybody's 4.", False),
    ],
)
def test_what_counts_as_an_origin(description: str, says: bool) -> None:
    assert bool(ORIGIN.search(description)) is says


@pytest.mark.parametrize("name", packaged())
def test_packaged_specs_validate(name: str) -> None:
    spec = load(name)
    jsonschema.validate(yaml.safe_load(find(name)[1]), schema())
    assert f"{spec.name}.yaml" == name


def test_a_field_of_an_earlier_release_is_one_line_that_says_what_to_do() -> None:
    old = MINIMAL.replace("output: {url: ", "output: {partitions: 8, url: ")
    assert old != MINIMAL
    said = "output.partitions: leave it out: tables are cut by bytes and processors, and no longer by the spec"
    with pytest.raises(UserMistake, match=re.escape(said)) as mistake:
        parse("x", old)
    assert "\n" not in str(mistake.value)
    with pytest.raises(UserMistake, match=re.escape(said)):
        parse("x", MINIMAL, ["output.partitions=8"])


def test_all_promised_specs_are_packaged() -> None:
    assert packaged() == ["demo.yaml", "mmc4.yaml", "obelics.yaml", "sugar.yaml"]


def test_show_prints_every_default_and_is_a_spec_itself(tmp_path: Path) -> None:
    (tmp_path / "small.yaml").write_text(MINIMAL)
    done = CliRunner().invoke(app, ["show", str(tmp_path / "small.yaml"), "--set", "mine.top_k=3"])
    assert done.exit_code == 0
    shown = yaml.safe_load(done.stdout)
    assert shown["filter"]["document"]["num_words"] == {"min": 10, "max": 2000} and shown["mine"]["top_k"] == 3
    assert Spec.model_validate(shown).model_dump(mode="json") == shown


def test_a_missing_path_is_looked_up_among_the_packaged_specs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert load("demo") == load("demo.yaml") == load("specs/demo.yaml")
    (tmp_path / "demo.yaml").write_text(MINIMAL)
    assert load("demo.yaml").name == "small", "a file that is there comes first"
    with pytest.raises(UserMistake, match=r"elsewhere/demo\.yaml: no such file"):
        load("elsewhere/demo.yaml")


def test_overrides_are_yaml_and_reach_any_depth() -> None:
    spec = parse("x", MINIMAL, ["filter.document.languages=[en, de]", "filter.image.documents.max=7", "name=other"])
    assert spec.filter.document.languages == ("en", "de")
    assert spec.filter.image.documents.max == 7 and spec.name == "other"


def test_an_override_leaves_its_neighbours_alone() -> None:
    plain = parse("x", MINIMAL)
    spec = parse("x", MINIMAL, ["filter.document.num_words.min=5", "source.snapshot=two", "dedup.bands=3"])
    assert spec.filter.document.num_words.model_dump() == {"min": 5, "max": plain.filter.document.num_words.max}
    assert spec.filter.model_copy(update={"document": plain.filter.document}) == plain.filter
    assert spec.dedup == plain.dedup.model_copy(update={"bands": 3})
    # What the file says of a bound is all of it.
    text = MINIMAL + "filter: {document: {num_words: {max: 9}}}"
    assert parse("x", text).filter.document.num_words.model_dump() == {"min": None, "max": 9}
    assert parse("x", text, ["filter.document.num_words.min=5"]).filter.document.num_words.min == 5


@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        (["filter.document.num_word.min=3"], "filter.document.num_word: unknown field; did you mean 'num_words'?"),
        (["sorce.kind=site"], "sorce: unknown field; did you mean 'source'?"),
        (["source.sedes=[]"], "source.sedes: unknown field; did you mean 'seeds'?"),
        (["zzz=1"], "zzz: unknown field; valid here: crawl, dedup"),
        (["mine.top_k=many"], "mine.top_k: Input should be a valid integer"),
        (["mine.top_k='3'"], "mine.top_k: Input should be a valid integer"),
        (["crawl.max_pages=0"], "crawl.max_pages: Input should be greater than or equal to 1, got 0"),
        (["crawl.scope=planet"], "crawl.scope: Input should be 'host', 'prefix', 'regex' or 'any', got 'planet'"),
        (["embed.shared=clip"], "'clip' is no image encoder; there are: "),
        (["filter.document.num_words={min: 9, max: 1}"], "min 9.0 is above max 1.0"),
        (["source.kind=ftp"], "source: Input tag 'ftp'"),
        (["source={kind: urls}"], "source.path: is required"),
        (["name=A B"], "name: String should match pattern"),
        (["mine.top_k"], "--set mine.top_k: write it as section.field=value"),
        (["=3"], "--set =3: write it as section.field=value"),
        (["name.x=3"], "--set name.x=3: name is a value, not a section"),
        (["mine.top_k=[1"], "--set mine.top_k=[1: the value is not YAML"),
        (["name=2026-13-45"], "--set name=2026-13-45: the value is not YAML: 2026-13-45 is no valid timestamp"),
        (["mine.top_k=" + "9" * 5000], "the value is not YAML: 9999"),
        (["mine.kinds=" + "[" * 3000], "the value is not YAML: more than 50 levels"),
        (["mine={top_k: 3, top_k: 4}"], "the key 'top_k' stands twice in one mapping"),
        (
            ["filter.document.languages=[english]"],
            "'english' is no ISO 639-1 code of a language that is identified; did",
        ),
        (["filter.image.formats=[jpg]"], "filter.image.formats.0: Input should be 'jpeg', 'png', 'webp', 'gif', 'bmp'"),
        (["filter.image.formats=[nonsense]"], "or 'jp2', got 'nonsense'"),
        (["crawl.retryable_statuses=[-1]"], "crawl.retryable_statuses.0: Input should be greater than or equal to 100"),
        (["crawl.retryable_statuses=[99999]"], "crawl.retryable_statuses.0: Input should be less than or equal to 599"),
        (["output.url=''"], "output.url: String should have at least 1 character"),
        (['output.url="a\\0b"'], "output.url: String should match pattern"),
        (["source={kind: urls, path: ''}"], "source.path: String should have at least 1 character"),
        (
            ["source={kind: html, base_url: 'http://a.test', path: ''}"],
            "source.path: String should have at least 1 char",
        ),
        (["source={kind: warc, paths: ['']}"], "source.paths.0: String should have at least 1 character"),
        (["resources.workers=99999999999999999999"], "resources.workers: Input should be less than or equal to 4096"),
        (["resources.encoder_workers=5000"], "resources.encoder_workers: Input should be less than or equal to 4096"),
        (["resources.object_store_megabytes=999999999"], "resources.object_store_megabytes: Input should be less than"),
    ],
)
def test_mistakes_name_the_field_in_one_line(overrides: list[str], words: str) -> None:
    with pytest.raises(UserMistake) as caught:
        parse("small.yaml", MINIMAL, overrides)
    said = str(caught.value)
    assert words in said and "\n" not in said
    assert said.startswith(("small.yaml: ", "--set "))


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("name: [", "x.yaml:1: not YAML: "),
        ("- a\n- b", "x.yaml: a spec is a mapping of sections, this is list"),
        ("", "x.yaml: a spec is a mapping of sections, this is NoneType"),
        ("name: small", "x.yaml: output: is required (1 more)"),
        ("a: 1\n\tb: 2", "x.yaml:2: not YAML: "),
        ("name: a\nx: \x00", "x.yaml:2: not YAML: it holds the character U+0000"),
        ("name: 2026-13-45", "x.yaml:1: not YAML: 2026-13-45 is no valid timestamp"),
        (
            "name: a\nmine: {}\nmine: {}",
            "x.yaml:3: not YAML: the key 'mine' stands twice in one mapping, first in line 2",
        ),
        (
            # Aliases make three hundred characters a value of 9 to the 9.
            MINIMAL
            + "mine:\n  top_k:\n  - &a0 [1, 1]"
            + "".join(f"\n  - &a{i + 1} [{', '.join([f'*a{i}'] * 9)}]" for i in range(9)),
            "mine.top_k: Input should be a valid integer, got [[1, 1], [",
        ),
    ],
)
def test_files_that_are_no_spec(text: str, words: str) -> None:
    with pytest.raises(UserMistake) as caught:
        parse("x.yaml", text)
    assert words in str(caught.value) and "\n" not in str(caught.value)


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    (tmp_path / "latin.yaml").write_bytes("name: café".encode("latin-1"))
    with pytest.raises(UserMistake, match=r"latin\.yaml: cannot be read: "):
        load(str(tmp_path / "latin.yaml"))
    for name in (str(tmp_path), "a" * 5000, "a\0b", ""):
        with pytest.raises(UserMistake, match="no such file, nor a packaged spec"):
            load(name)


@pytest.mark.parametrize("word", ["no", "off", "yes"])
def test_a_word_that_yaml_takes_for_a_truth_value_is_told_to_be_quoted(word: str) -> None:
    given = MINIMAL + f"filter: {{document: {{languages: [en, {word}]}}}}\n"
    with pytest.raises(UserMistake, match=r"filter.document.languages.1: YAML reads a bare no.* write it in quotes"):
        parse("x.yaml", given)
    assert parse("x.yaml", given.replace(word, '"no"')).filter.document.languages == ("en", "no")


@pytest.mark.parametrize(
    ("given", "share"), [("1%", 0.01), ("0.5%", 0.005), ("0.01", 0.01), ("100%", 1), ("1", 1), ("' 2 % '", 0.02)]
)
@pytest.mark.parametrize("kind", ["site, seeds: ['http://site.test/']", "documents, path: x", "warc, paths: [x]"])
def test_a_sample_is_a_share_however_it_is_written(given: str, share: float, kind: str) -> None:
    source = parse("a", MINIMAL, [f"source={{kind: {kind}}}", f"source.sample={given}"]).source
    assert source.sample == pytest.approx(share)


@pytest.mark.parametrize("given", ["0", "0%", "101%", "1.5", "-1%", "a tenth", "nan%", "inf", "true", "[1]", "1%%"])
def test_a_sample_that_is_no_share_is_one_line(given: str) -> None:
    with pytest.raises(UserMistake, match=r"^a: source\.sample: ") as told:
        parse("a", MINIMAL, [f"source.sample={given}"])
    assert len(str(told.value).splitlines()) == 1


def test_a_layout_that_is_unknown() -> None:
    with pytest.raises(UserMistake, match=r"source\.layout: .*'interloom', 'obelics' or 'mmc4', got 'laion'"):
        parse("a", MINIMAL, ["source={kind: documents, path: x, layout: laion}"])
