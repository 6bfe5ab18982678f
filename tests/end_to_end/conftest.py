"""A served site, a spec for it, and an undisturbed build of it, shared by all tests of this folder."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.end_to_end.builds import build, write_spec
from tests.end_to_end.site import served, write_site
from tests.servers import Site


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The site's files."""
    return write_site(tmp_path_factory.mktemp("www") / "site")


@pytest.fixture(scope="session")
def site(folder: Path) -> Iterator[Site]:
    with served(folder) as running:
        yield running


@pytest.fixture(scope="session")
def spec(site: Site, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_spec(tmp_path_factory.mktemp("spec") / "prints.yaml", site.url)


@pytest.fixture(scope="session")
def first_log(built: Path) -> list[str]:
    """Paths that the undisturbed build asked for, in order."""
    return (built.parent / "asked.txt").read_text().splitlines()


@pytest.fixture(scope="session")
def built(spec: Path, site: Site, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An undisturbed build of the site. Copy it before you change it."""
    folder = tmp_path_factory.mktemp("built")
    before = len(site.log)
    ended = build(spec, folder / "out").check()
    (folder / "asked.txt").write_text("\n".join(site.paths()[before:]))
    (folder / "said.txt").write_text(ended.out + ended.err)
    return folder / "out"
