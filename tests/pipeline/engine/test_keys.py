"""Keys: what changes them and what does not."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

import schemas.keys
from pipeline.engine import keys
from tests.pipeline.toy import Square, SquareSettings


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A stages-like package of two modules, importable for one test."""
    folder = tmp_path / "keyed"
    folder.mkdir()
    (folder / "__init__.py").write_text("")
    (folder / "low.py").write_text("X = 1\n")
    (folder / "high.py").write_text(
        '"""Words."""\nfrom keyed.low import X\n\ndef f():\n    """More."""\n    return X\n'
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setattr(keys, "OWN_PACKAGES", frozenset({"keyed"}))
    return folder


def key_of_high() -> str:
    for cached in (keys.code_key, schemas.keys._parsed, schemas.keys._source):
        cached.cache_clear()
    sys.modules.pop("keyed.high", None)
    return keys.code_key("keyed.high")


def test_code_key_sees_code_and_imports_but_not_prose(package: Path) -> None:
    before = key_of_high()
    high = package / "high.py"
    high.write_text(high.read_text().replace("Words", "Other words").replace("More", "Less") + "# a comment\n")
    assert key_of_high() == before
    (package / "low.py").write_text("X = 2\n")
    changed = key_of_high()
    assert changed != before
    high.write_text(high.read_text().replace("return X", "return X + 1"))
    assert key_of_high() not in (before, changed)


def test_function_key_sees_settings_only() -> None:
    assert keys.function_key(Square(SquareSettings())) == keys.function_key(Square(SquareSettings(plus=0)))
    assert keys.function_key(Square(SquareSettings(plus=1))) != keys.function_key(Square(SquareSettings()))


def test_differences_name_what_changed() -> None:
    old = {"settings": {"filter": {"words": {"min": 4}}}, "code": {"stages.a": "0" * 32}, "gone": 1}
    new = {"settings": {"filter": {"words": {"min": 5}}}, "code": {"stages.a": "1" * 32}, "fresh": 1}
    assert keys.differences(old, new) == [
        "code.stages.a changed",
        "fresh is new",
        "gone is gone",
        "settings.filter.words.min: 4 -> 5",
    ]


def test_digest_keeps_parts_apart() -> None:
    assert schemas.keys.digest("ab", "c") != schemas.keys.digest("a", "bc")
