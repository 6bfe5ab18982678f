"""A served site, a spec for it, and the build command as users run it."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import yaml

from tests.end_to_end.site import write_site
from tests.servers import Site, static_site

ROOT = Path(__file__).resolve().parents[2]


@dataclass(frozen=True)
class Ended:
    """How a command ended."""

    code: int
    out: str
    err: str

    def check(self) -> Ended:
        assert self.code == 0, f"exit {self.code}\n{self.out}\n{self.err}"
        return self


Command = Callable[..., Ended]


def environment(**more: str) -> dict[str, str]:
    """As a user's shell: no Ray address, no token of this test process."""
    kept = {k: v for k, v in os.environ.items() if k not in ("RAY_AUTH_MODE", "RAY_AUTH_TOKEN", "RAY_ADDRESS")}
    return {**kept, "RAY_USAGE_STATS_ENABLED": "0", "COLUMNS": "200", **more}


def run(*arguments: str, timeout: float = 400, **env: str) -> Ended:
    """`python -m` with these arguments, from the checkout."""
    done = subprocess.run(
        [sys.executable, "-m", *arguments],
        capture_output=True,
        text=True,
        cwd=ROOT,
        env=environment(**env),
        timeout=timeout,
    )
    return Ended(done.returncode, done.stdout, done.stderr)


@pytest.fixture(scope="session")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    folder = write_site(tmp_path_factory.mktemp("www") / "site")
    with static_site(folder) as running:
        yield running


def write_spec(path: Path, url: str, **more: object) -> Path:
    """A spec for a site on loopback; `more` overrides sections."""
    data: dict[str, object] = {
        "name": "prints",
        "output": {"url": str(path.parent / "out"), "partitions": 3},
        "source": {"kind": "site", "seeds": [f"{url}/index.html"], "snapshot": "one"},
        "crawl": {"allow_private_networks": True, "per_host_delay": 0, "per_host_concurrency": 8, "retries": 0},
        "filter": {"image": {"documents": {"max": 100}}},
        "pair": {"min_similarity": None},
        "mine": {"top_k": 3},
        "shard": {"held_out_fraction": 0.3},
        "resources": {"workers": 2, "object_store_megabytes": 200},
    }
    path.write_text(yaml.safe_dump({**data, **more}))
    return path


@pytest.fixture(scope="session")
def spec(site: Site, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_spec(tmp_path_factory.mktemp("spec") / "prints.yaml", site.url)


@pytest.fixture(scope="session")
def built(spec: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An undisturbed build of the site."""
    out = tmp_path_factory.mktemp("built") / "out"
    run("pipeline.build", "--spec", str(spec), "--out", str(out)).check()
    return out


def shards(out: Path) -> dict[str, bytes]:
    """Bytes of the latest version's shards, by version and name."""
    version = (out / "latest").read_text().strip()
    folder = out / "versions" / version / "shards"
    return {f"{version}/{path.name}": path.read_bytes() for path in sorted(folder.glob("*.arrow"))}
