"""The recipes of MMC4 and OBELICS say what the table of filters promises, value by value."""

from __future__ import annotations

import shutil
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any

import pytest

from pipeline.spec.loading import Spec, find, load, packaged

ROOT = Path(__file__).resolve().parents[3]

SIZE = {"min": 150, "max": 20_000}

# One row of the table a line: place in the spec -> value, for both recipes unless RECIPE says otherwise.
BOTH: dict[str, Any] = {
    "filter.image.formats": ["jpeg", "png", "webp"],  # jpg is jpeg
    "filter.image.original_width": SIZE,
    "filter.image.original_height": SIZE,
    "filter.image.rendered_width": SIZE,
    "filter.image.rendered_height": SIZE,
    "filter.image.aspect_ratio": {"min": 0.5, "max": 2},
    "filter.image.url_words": ["logo", "button", "icon", "plugin", "widget", "avatar"],
    "filter.document.num_images": {"min": 1, "max": 30},
    "filter.paragraph.num_words": {"min": 4, "max": 1000},
    "filter.document.num_words": {"min": 10, "max": 2000},
    "filter.scores.character_ngram": 10,
    "filter.paragraph.character_repetition": {"min": None, "max": 0.1},
    "filter.document.character_repetition": {"min": None, "max": 0.1},
    "filter.scores.word_ngram": 5,
    "filter.paragraph.word_repetition": {"min": None, "max": 0.1},
    "filter.document.word_repetition": {"min": None, "max": 0.2},
    "filter.paragraph.special_characters": {"min": None, "max": 0.3},
    "filter.document.special_characters": {"min": None, "max": 0.275},
    "filter.paragraph.stop_words": {"min": 0.3, "max": None},
    "filter.document.stop_words": {"min": 0.35, "max": None},
    "filter.paragraph.flagged_words": {"min": None, "max": 0.01},
    "filter.document.flagged_words": {"min": None, "max": 0.01},
    "filter.paragraph.punctuation": {"min": 0.001, "max": None},
    "filter.document.punctuation": {"min": 0.03, "max": None},
    "filter.document.language": {"min": 0.8, "max": None},
    "filter.document.languages": ["en"],
    "filter.paragraph.spam_words": {"min": None, "max": 0.12},
    "filter.image.documents": {"min": None, "max": 10},
    "dedup.bands": 14,
    "dedup.rows": 8,
    "dedup.shingle_words": 5,
    "dedup.paragraph_max_documents": 2,
}
RECIPE: dict[str, dict[str, Any]] = {
    "mmc4": {"pair.strategy": "mmc4", "pair.min_similarity": 0.15, "embed.shared": "open_clip:ViT-L-14/openai"},
    # The bound on the cosine drops images of MMC4; OBELICS has none.
    "obelics": {"pair.strategy": "dom", "pair.min_similarity": None},
}


def at(data: Any, place: str) -> Any:
    for key in place.split("."):
        data = data[key]
    return data


@pytest.mark.parametrize("name", sorted(RECIPE))
def test_a_recipe_resolves_to_the_table(name: str) -> None:
    resolved = load(name).model_dump(mode="json")
    expected = BOTH | RECIPE[name]
    assert {place: at(resolved, place) for place in expected} == expected


def test_obelics_names_every_rule_and_its_bounds_are_the_defaults() -> None:
    _, text = find("obelics")
    spec, plain = load("obelics").filter, Spec.model_fields["filter"].default
    for kind in ("paragraph", "image", "document"):
        rules = getattr(plain, kind).model_dump(mode="json")
        rules.pop("punctuation_min_words", None)
        assert [rule for rule in rules if f"    {rule}: " not in text] == []
    document = spec.document.model_copy(update={"languages": plain.document.languages})
    assert spec.model_copy(update={"document": document}) == plain


@pytest.mark.parametrize("name", ["mmc4", "sugar"])
def test_a_bound_on_cosines_comes_with_the_encoder_it_was_found_for(name: str) -> None:
    spec = load(name)
    assert (spec.pair.min_similarity, spec.embed.shared) == (0.15, "open_clip:ViT-L-14/openai")


def test_without_a_word_no_image_is_dropped_for_its_cosine() -> None:
    plain = Spec.model_fields["pair"].default
    assert plain.min_similarity is None and load("demo").pair == plain


@pytest.mark.slow
def test_a_wheel_carries_what_the_docs_promise(tmp_path: Path) -> None:
    source = tmp_path / "source"
    copied = ["alignment", "assets", "dags", "pipeline", "recipes", "schemas", "specs", "stages", "trainer"]
    for name in copied:
        shutil.copytree(ROOT / name, source / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source)
    build = "import sys; from setuptools import build_meta; build_meta.build_wheel(sys.argv[1])"
    subprocess.run([sys.executable, "-c", build, str(tmp_path)], cwd=source, check=True, capture_output=True)
    (wheel,) = tmp_path.glob("*.whl")
    names = zipfile.ZipFile(wheel).namelist()
    assert {f"specs/{name}" for name in packaged()} | {"recipes/demo.yaml", "stages/encoders/lit_head.md"} <= set(names)
    # Files of the scheme "data" lie below sysconfig.get_path("data") once installed: docs/cluster.md copies this one.
    dag = "share/interloom/dags/corpus_build.py"
    assert any(name.endswith(f".data/data/{dag}") for name in names)
    assert dag in (ROOT / "docs/cluster.md").read_text(encoding="utf-8")


def test_sugar_takes_documents_of_mmc4s_core_size() -> None:
    assert load("sugar").filter.document.num_images.model_dump() == {"min": 2, "max": 15}
