"""Keys follow what shapes a cache: code, weights, the tokenizer's files; not names, places or prose."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import torch
from torch import nn

import schemas.keys
from trainer import keys
from trainer.model.text import byte_tokenizer

INNER = "SIZE = 3\n"
OUTER = "from keyed.inner import SIZE\n\n\ndef double() -> int:\n    return 2 * SIZE\n"


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A package `keyed` of two modules, counted as ours."""
    folder = tmp_path / "keyed"
    folder.mkdir()
    for name, text in (("__init__", ""), ("inner", INNER), ("outer", OUTER)):
        (folder / f"{name}.py").write_text(text, encoding="utf-8")
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setattr(keys, "OWN_PACKAGES", frozenset({"keyed"}))
    return folder


def forget() -> None:
    for cached in (schemas.keys._parsed, schemas.keys._source):
        cached.cache_clear()


def key(*modules: str) -> str:
    forget()
    return keys.code_key(*modules)


def test_code_keys_follow_code_and_what_it_imports(package: Path) -> None:
    before = key("keyed.outer")
    told = OUTER.replace("    return 2 * SIZE", '    """More."""\n    return 2 * SIZE  # and why')
    assert told != OUTER
    (package / "outer.py").write_text('"""Prose."""\n' + told, encoding="utf-8")
    assert key("keyed.outer") == before
    (package / "outer.py").write_text(OUTER.replace("2 *", "3 *"), encoding="utf-8")
    changed = key("keyed.outer")
    (package / "inner.py").write_text(INNER.replace("3", "4"), encoding="utf-8")
    assert len({before, changed, key("keyed.outer")}) == 3
    assert "keyed.inner" not in sys.modules  # read, not run
    with pytest.raises(ModuleNotFoundError, match=r"keyed\.nothing"):
        key("keyed.nothing")
    forget()


def test_code_keys_know_the_libraries() -> None:
    own = keys.code_key("trainer.data.rows")
    assert (
        own != keys.code_key("trainer.data.rows", libraries=("tokenizers",)) != keys.code_key("trainer.data.features")
    )


def test_weights_keys_follow_names_types_and_bytes() -> None:
    torch.manual_seed(0)
    state = nn.Sequential(nn.Linear(2, 3), nn.BatchNorm1d(3)).state_dict()
    same = keys.weights_key(dict(reversed(list(state.items()))))
    assert keys.weights_key(state) == same
    assert keys.weights_key({f"a.{name}": value for name, value in state.items()}) != same
    assert keys.weights_key({name: value.double() for name, value in state.items()}) != same
    state["0.bias"][1] += 1e-6
    assert keys.weights_key(state) != same


def test_tokenizer_keys_follow_the_files(tmp_path: Path) -> None:
    from transformers import AutoTokenizer

    tokenizer = byte_tokenizer()
    found = []
    for name in ("a", "b"):
        tokenizer.save_pretrained(tmp_path / name)
        found.append(keys.tokenizer_key(AutoTokenizer.from_pretrained(tmp_path / name)))
    assert found[0] == found[1]  # wherever it lies
    file = tmp_path / "a" / "tokenizer.json"
    text = file.read_text(encoding="utf-8")
    changed = text.replace('"!": 0', '"!": 1', 1).replace('"\\"": 1', '"\\"": 0', 1)
    assert changed != text
    file.write_text(changed, encoding="utf-8")
    assert keys.tokenizer_key(AutoTokenizer.from_pretrained(tmp_path / "a")) != found[0]
