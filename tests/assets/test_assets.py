"""The cache, against a package that the test builds and pip finds in a local folder: no index is asked."""

from __future__ import annotations

import dataclasses
import hashlib
import os
import subprocess
import sys
import zipfile
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

import assets
from assets import __main__ as command
from assets import cache, catalog, fetch
from assets.catalog import Asset

REPOSITORY = Path(__file__).parents[2]


def build_wheel(folder: Path, members: Mapping[str, bytes], name: str = "kettle") -> Asset:
    """A wheel that pip accepts, and its entry for the catalogue."""
    path = folder / f"{name}-1.0-py3-none-any.whl"
    with zipfile.ZipFile(path, "w") as archive:
        for member, data in members.items():
            archive.writestr(member, data)
        archive.writestr(f"{name}-1.0.dist-info/METADATA", f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
        archive.writestr(
            f"{name}-1.0.dist-info/WHEEL",
            "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
        )
        archive.writestr(f"{name}-1.0.dist-info/RECORD", "")
    data = path.read_bytes()
    return Asset(
        name=name,
        version="1.0",
        sha256=hashlib.sha256(data).hexdigest(),
        size=len(data),
        inside=f"{name}/model",
        licence="MIT",
        what="a kettle",
        groups=("demo",),
        without=("cache",),
    )


PAGES = {
    "kettle/model/weights.bin": b"\x00\x01",
    "kettle/model/deep/config.json": b"{}",
    "kettle/model/cache/unread": b"x",
    "kettle/models/other": b"not a part of kettle/model",
    "kettle/__init__.py": b"",
}


@pytest.fixture
def shop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder that pip takes for its only source, and an empty cache."""
    folder = tmp_path / "shop"
    folder.mkdir()
    monkeypatch.setenv("INTERLOOM_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(folder))
    return folder


def offer(monkeypatch: pytest.MonkeyPatch, *offered: Asset) -> None:
    for module in (catalog, command):
        monkeypatch.setattr(module, "ASSETS", offered)


def test_fetch_unpacks_the_named_folder_once(
    shop: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    kettle = build_wheel(shop, PAGES)
    offer(monkeypatch, kettle)
    with pytest.raises(assets.MissingAsset, match=r"run `python -m assets fetch kettle`"):
        assets.resolve("kettle")
    assert command.main(["fetch", "kettle"]) == 0
    folder = assets.resolve("kettle")
    assert folder == cache.cache_root() / "kettle-1.0"
    files = sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())
    assert files == ["deep/config.json", "weights.bin"]
    assert (folder / "weights.bin").read_bytes() == b"\x00\x01"
    assert sorted(path.name for path in cache.cache_root().iterdir()) == ["kettle-1.0"]
    # The second time nothing is asked of pip: its only source is gone.
    (shop / "kettle-1.0-py3-none-any.whl").unlink()
    assert command.main(["fetch", "--group", "demo"]) == 0
    out = capsys.readouterr().out
    assert "kettle-1.0: fetched" in out and "kettle-1.0: already there" in out


def test_another_file_under_the_same_version_is_refused(shop: Path, capsys: pytest.CaptureFixture[str]) -> None:
    kettle = dataclasses.replace(build_wheel(shop, PAGES), sha256="0" * 64)
    with pytest.raises(fetch.FetchError, match=r"has sha256 .* not 0{64}"):
        fetch.fetch(kettle)
    assert list(cache.cache_root().iterdir()) == []


def test_an_absent_package_is_one_line_and_status_2(
    shop: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    kettle = build_wheel(shop, PAGES)
    (shop / "kettle-1.0-py3-none-any.whl").unlink()
    offer(monkeypatch, kettle)
    assert command.main(["fetch", "--all"]) == 2
    said = capsys.readouterr().err.strip()
    assert said.startswith("python -m assets: cannot download kettle==1.0: ERROR:") and "\n" not in said
    assert list(cache.cache_root().iterdir()) == []


@pytest.mark.parametrize("member", ["../evil", "kettle/model/../../evil", "/evil", "kettle/model/..\\evil"])
def test_members_that_would_land_elsewhere_are_refused(tmp_path: Path, member: str) -> None:
    kettle = build_wheel(tmp_path, PAGES | {member: b"evil"})
    with pytest.raises(fetch.FetchError, match="lies outside"):
        fetch.unpack(tmp_path / "kettle-1.0-py3-none-any.whl", kettle, tmp_path / "into")
    assert not list(tmp_path.rglob("*evil*"))


def test_links_are_refused(tmp_path: Path) -> None:
    kettle = build_wheel(tmp_path, PAGES)
    wheel = tmp_path / "kettle-1.0-py3-none-any.whl"
    with zipfile.ZipFile(wheel, "a") as archive:
        link = zipfile.ZipInfo("kettle/model/link")
        link.external_attr = 0o120777 << 16
        archive.writestr(link, "/etc/passwd")
    with pytest.raises(fetch.FetchError, match="holds the link"):
        fetch.unpack(wheel, kettle, tmp_path / "into")


def test_an_empty_part_is_refused(tmp_path: Path) -> None:
    kettle = dataclasses.replace(build_wheel(tmp_path, PAGES), inside="kettle/nothing")
    with pytest.raises(fetch.FetchError, match="holds nothing under kettle/nothing"):
        fetch.unpack(tmp_path / "kettle-1.0-py3-none-any.whl", kettle, tmp_path / "into")


def test_two_at_once_leave_one_whole_folder(shop: Path) -> None:
    kettle = build_wheel(shop, PAGES)
    with ThreadPoolExecutor(2) as pool:
        got = list(pool.map(fetch.fetch, [kettle, kettle]))
    assert True in got
    assert sorted(path.name for path in cache.cache_root().iterdir()) == ["kettle-1.0"]
    assert (cache.location(kettle) / "deep" / "config.json").read_bytes() == b"{}"


def test_the_loser_of_the_race_keeps_the_winner(shop: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    kettle = build_wheel(shop, PAGES)
    real = fetch.unpack

    def other_wins(wheel: Path, asset: Asset, folder: Path) -> int:
        real(wheel, asset, cache.location(asset))
        return real(wheel, asset, folder)

    monkeypatch.setattr(fetch, "unpack", other_wins)
    assert fetch.fetch(kettle) is False
    assert sorted(path.name for path in cache.cache_root().iterdir()) == ["kettle-1.0"]


def test_the_command_line_in_its_own_process(tmp_path: Path) -> None:
    environment = {**os.environ, "INTERLOOM_CACHE": str(tmp_path)}
    python = [sys.executable, "-m", "assets"]
    listed = subprocess.run(
        [*python, "list"], cwd=REPOSITORY, env=environment, capture_output=True, text=True, check=True
    )
    assert len(listed.stdout.splitlines()) == len(catalog.ASSETS)
    assert all("not fetched" in line for line in listed.stdout.splitlines())
    refused = subprocess.run(
        [*python, "fetch", "nonsense"], cwd=REPOSITORY, env=environment, capture_output=True, text=True, check=False
    )
    assert refused.returncode == 2
    assert refused.stderr.startswith("python -m assets: no asset is called 'nonsense'; there are: sasview,")


def test_the_catalogue_is_sound() -> None:
    assert len({asset.name for asset in catalog.ASSETS}) == len(catalog.ASSETS)
    for asset in catalog.ASSETS:
        assert len(asset.sha256) == 64 and int(asset.sha256, 16) > 0
        assert asset.groups and asset.licence and asset.size > 0
        assert asset in catalog.in_group(asset.groups[0])
    with pytest.raises(catalog.UnknownAsset, match="no group is called 'demos'; there are: demo"):
        catalog.in_group("demos")


def test_fetch_without_a_name_says_what_to_give(capsys: pytest.CaptureFixture[str]) -> None:
    assert command.main(["fetch"]) == 2
    assert "name an asset, --group" in capsys.readouterr().err
