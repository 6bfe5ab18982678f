"""Recipes: packaged ones are valid, mistakes are one line with the nearest valid name."""

from __future__ import annotations

from importlib import resources
from pathlib import Path

import pytest
from pydantic import BaseModel

from trainer.errors import UserError
from trainer.recipe import Recipe, load_recipe


def test_packaged_recipes_load_from_anywhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    names = [entry.name for entry in resources.files("recipes").iterdir() if entry.name.endswith(".yaml")]
    assert {"demo.yaml", "tiny.yaml"} <= set(names)
    for name in names:
        assert load_recipe(f"recipes/{name}").name


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (("optimizer.step=5",), "unknown field optimizer.step; did you mean optimizer.steps?"),
        (("modle={}",), "unknown field modle; did you mean model?"),
        (("optimizer.steps=many",), "optimizer.steps: input should be a valid integer, got 'many'"),
        (("objective.span=all",), "objective.span"),
        (("optimizer.steps",), "write it as key=value"),
        (("seed.x=1",), "is not a section"),
        (("data.pack_tokens=64",), "below data.document_tokens"),
        (("optimizer.steps=0",), "greater than or equal to 1"),
        (("optimizer.learning_rate=.inf",), "optimizer.learning_rate: input should be a finite number"),
        (("objective.alpha=.nan",), "objective.alpha: input should be a finite number"),
        (("seed=99999999999999999999999",), "seed: input should be less than"),
        (("seed=" + "9" * 5000,), "the value is not YAML"),
        (("seed=2026-13-45",), "the value is not YAML"),
    ],
)
def test_mistakes_are_one_line(overrides: tuple[str, ...], message: str) -> None:
    with pytest.raises(UserError) as caught:
        load_recipe("recipes/tiny.yaml", ("seed=1", *overrides))
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_files_that_are_not_recipes(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"packaged recipes: .*demo\.yaml"):
        load_recipe("nothing.yaml")
    for content in ("a: [", "- 1"):
        (tmp_path / "bad.yaml").write_text(content, encoding="utf-8")
        with pytest.raises(UserError, match=r"bad\.yaml"):
            load_recipe(str(tmp_path / "bad.yaml"))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"name: \xff\xfe", "cannot be read"),
        (b"name: a\0b", "the character U+0000"),
        (b"name: " + b"[" * 3000, "more than 50 levels"),
        (b"seed: " + b"9" * 5000, "is no valid int"),
        (b"seed: 2026-13-45", "2026-13-45 is no valid timestamp"),
        (b"name: a\nseed: 1\nname: b", ":3: not YAML: the key 'name' stands twice"),
        (b"name: !!python/object:os.system {}", "could not determine a constructor"),
        (b"name: a\n? [1]\n: 2", "unhashable key"),
    ],
)
def test_text_that_is_no_yaml_is_one_line(content: bytes, message: str, tmp_path: Path) -> None:
    path = tmp_path / "bad.yaml"
    path.write_bytes(content)
    with pytest.raises(UserError) as caught:
        load_recipe(str(path))
    assert message in str(caught.value) and "bad.yaml" in str(caught.value)
    assert "\n" not in str(caught.value)
    assert load_recipe("tiny", ("data={<<: {workers: 1}, workers: 2}",)).data.workers == 2


def test_every_field_says_what_it_is() -> None:
    def walk(section: type[BaseModel]) -> None:
        for name, field in section.model_fields.items():
            assert field.description, f"{section.__name__}.{name} has no docstring"
            if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel):
                walk(field.annotation)

    walk(Recipe)


@pytest.mark.parametrize("number", ["1e-4", "1E-4", ".1e-3", "0.0001"])
def test_a_rate_may_be_written_with_an_exponent(number: str, tmp_path: Path) -> None:
    (tmp_path / "own.yaml").write_text(f"name: own\noptimizer: {{learning_rate: {number}}}", encoding="utf-8")
    assert load_recipe(str(tmp_path / "own.yaml")).optimizer.learning_rate == 1e-4
    assert load_recipe("tiny", (f"optimizer.learning_rate={number}",)).optimizer.learning_rate == 1e-4
    with pytest.raises(UserError, match=r"optimizer\.learning_rate: input should be a valid number"):
        load_recipe("tiny", (f"optimizer.learning_rate='{number}'",))
