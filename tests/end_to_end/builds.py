"""The build as users run it, a spec for the site, and what a build leaves behind."""

from __future__ import annotations

import contextlib
import io
import os
import runpy
import signal
import subprocess
import sys
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest import mock

import pyarrow as pa
import yaml

from pipeline.corpus.version import Corpus
from tests.end_to_end.site import salt_without_leaks

ROOT = Path(__file__).resolve().parents[2]
# Small enough for several shards a split.
TARGET_BYTES = 40_000
HELD_OUT = 0.5
# Encoders that load nothing: what is tested here is the build.
SHARED = "hash:64"


@dataclass(frozen=True)
class Ended:
    """How a command ended."""

    code: int
    out: str
    err: str

    def check(self) -> Ended:
        assert self.code == 0, f"exit {self.code}\n{self.out}\n{self.err}"
        return self

    def failed(self, code: int) -> str:
        """The one line of a failure."""
        errors = [line for line in self.err.splitlines() if line.startswith("error: ")]
        assert self.code == code and len(errors) == 1, f"exit {self.code}\n{self.out}\n{self.err}"
        assert "Traceback" not in self.err + self.out, self.err
        assert self.err.splitlines()[-1] == errors[0], self.err
        return errors[0]


def environment(**more: str) -> dict[str, str]:
    """As a user's shell: no Ray address, no token of this test process."""
    kept = {k: v for k, v in os.environ.items() if k not in ("RAY_AUTH_MODE", "RAY_AUTH_TOKEN", "RAY_ADDRESS")}
    return {**kept, "RAY_USAGE_STATS_ENABLED": "0", "COLUMNS": "200", **more}


def run(*arguments: str, timeout: float = 550, **env: str) -> Ended:
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


def build(spec: Path, out: Path | str, *more: str, **env: str) -> Ended:
    """`python -m pipeline.build --spec SPEC --out OUT`."""
    return run("pipeline.build", "--spec", str(spec), "--out", str(out), *more, **env)


def run_here(*arguments: str) -> Ended:
    """The same in this process, which has imported most of it: for all but how a process fares."""
    said, told = io.StringIO(), io.StringIO()
    handler = signal.getsignal(signal.SIGTERM)
    code: object = 0
    # A command may set variables for its process; in a narrow terminal help would be cut.
    with mock.patch.object(sys, "argv", list(arguments)), mock.patch.dict(os.environ, COLUMNS="200"):
        try:
            with contextlib.redirect_stdout(said), contextlib.redirect_stderr(told), warnings.catch_warnings():
                # That the module has been imported before.
                warnings.filterwarnings("ignore", ".* found in sys.modules", RuntimeWarning)
                runpy.run_module(arguments[0], run_name="__main__", alter_sys=True)
        except SystemExit as exit:
            code = exit.code
        except ImportError as error:  # there is no such module: a process ends with 1
            told.write(f"{error}\n")
            code = 1
        finally:
            signal.signal(signal.SIGTERM, handler)
    assert code is None or isinstance(code, int), code
    return Ended(code or 0, said.getvalue(), told.getvalue())


def build_here(spec: Path, out: Path | str, *more: str) -> Ended:
    """`build` in this process, on the tests' Ray (fixture `local_ray`)."""
    return run_here("pipeline.build", "--spec", str(spec), "--out", str(out), *more)


def setting(**fields: str | float) -> list[str]:
    """--set options: dots as double underscores, resources__workers=1."""
    return [word for name, value in fields.items() for word in ("--set", f"{name.replace('__', '.')}={value}")]


def write_spec(path: Path, url: str, **more: object) -> Path:
    """A spec for a site on loopback; `more` overrides sections."""
    data: dict[str, object] = {
        "name": "prints",
        "output": {"url": str(path.parent / "out")},
        "source": {"kind": "site", "seeds": [f"{url}/index.html"], "snapshot": "one"},
        "crawl": {"allow_private_networks": True, "per_host_delay": 0, "per_host_concurrency": 8, "retries": 0},
        "embed": {"image_primary": "hash:48", "sentence_primary": "hash:48", "shared": SHARED},
        "pair": {"min_similarity": None},
        "mine": {"top_k": 3},
        "shard": {
            "held_out_fraction": HELD_OUT,
            "split_salt": salt_without_leaks(url, HELD_OUT),
            "target_bytes": TARGET_BYTES,
        },
        "resources": {"workers": 2, "object_store_megabytes": 200},
    }
    path.write_text(yaml.safe_dump({**data, **more}))
    return path


def shards(out: Path) -> dict[str, bytes]:
    """Bytes of the latest version's shards, by version and name."""
    version = (out / "latest").read_text().strip()
    folder = out / "versions" / version / "shards"
    found = {f"{version}/{path.name}": path.read_bytes() for path in sorted(folder.glob("*.arrow"))}
    assert found, f"no shards in {folder}"
    return found


def tree(out: Path) -> dict[str, tuple[bytes, int]]:
    """Every file under a folder: its bytes and the time of its last change."""
    return {
        str(path.relative_to(out)): (path.read_bytes(), path.stat().st_mtime_ns)
        for path in sorted(out.rglob("*"))
        if path.is_file()
    }


def documents(out: Path) -> list[dict[str, Any]]:
    """Rows of the latest version's shards."""
    return pa.concat_tables(Corpus(str(out)).shards()).to_pylist()


def decisions(out: Path) -> list[dict[str, Any]]:
    """Decision rows of all phases of the latest version."""
    return [row for table in Corpus(str(out)).decisions() for row in table.to_pylist()]


def ran(out: Path) -> dict[str, dict[str, Any]]:
    """phase -> the `run` of its record: rows_computed, rows_remembered, seconds."""
    corpus = Corpus(str(out))
    return {phase: corpus.table(phase).record.run for phase in corpus.phases}
