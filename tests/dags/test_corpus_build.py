"""The DAG against a real Ray head with its Jobs API, by `airflow dags test`; one head for the module.

The commands that it submits are stand-ins of the two packages, uploaded as working directory: what is tested is
what Airflow does with them.
"""

from __future__ import annotations

import contextlib
import importlib
import json
import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import jinja2
import pytest
import typer

from trainer.recipe import load_recipe

DAGS = Path(__file__).parents[2] / "dags"
STAND_IN = """
import json, pathlib, sys
words = dict(zip(sys.argv[1::2], sys.argv[2::2]))
corpus = pathlib.Path(words.get("--out" if "{name}" == "build" else "--corpus"))
corpus.mkdir(parents=True, exist_ok=True)
calls = corpus / "calls.jsonl"
with calls.open("a") as file:
    file.write(json.dumps(["{name}", words]) + "\\n")
print("{name} says hello", flush=True)
code = int((corpus / "{name}.exit").read_text()) if (corpus / "{name}.exit").exists() else 0
sys.exit(code)
"""


class Head:
    """A Ray head of this test's own, and an Airflow home beside it."""

    def __init__(self, scratch: Path) -> None:
        self.scratch = scratch
        self.token = secrets.token_hex(32)
        self.port = free_port()
        self.address = f"http://127.0.0.1:{self.port}"
        self.environment = {
            **{name: value for name, value in os.environ.items() if not name.startswith(("RAY_", "AIRFLOW"))},
            "RAY_USAGE_STATS_ENABLED": "0",
            "RAY_AUTH_MODE": "token",
            "RAY_AUTH_TOKEN": self.token,
            "RAY_TMPDIR": str(scratch / "ray"),
            "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
        }
        self.airflow = {
            **{name: value for name, value in self.environment.items() if not name.startswith("RAY_AUTH")},
            "AIRFLOW_HOME": str(scratch / "airflow"),
            "AIRFLOW__CORE__DAGS_FOLDER": str(DAGS),
            "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
            "AIRFLOW__CORE__UNIT_TEST_MODE": "False",
            "AIRFLOW_CONN_RAY_DEFAULT": json.dumps(
                {"conn_type": "http", "host": "127.0.0.1", "port": self.port, "password": self.token}
            ),
        }
        command = [
            str(Path(sys.executable).with_name("ray")), "start", "--head", "--block", "--num-cpus=1", "--port=0",
            "--node-ip-address=127.0.0.1", "--dashboard-host=127.0.0.1", f"--dashboard-port={self.port}",
            f"--dashboard-agent-listen-port={free_port()}", "--object-store-memory=80000000",
            f"--temp-dir={scratch / 'ray'}", "--disable-usage-stats",
        ]  # fmt: skip
        self.log = (scratch / "head.log").open("w")
        self.process = subprocess.Popen(
            command, env=self.environment, stdout=self.log, stderr=subprocess.STDOUT, start_new_session=True
        )

    def wait(self, seconds: float = 90) -> None:
        request = urllib.request.Request(
            f"{self.address}/api/version", headers={"Authorization": f"Bearer {self.token}"}
        )
        end = time.monotonic() + seconds
        while True:
            try:
                with urllib.request.urlopen(request, timeout=5):
                    return
            except OSError:
                assert self.process.poll() is None and time.monotonic() < end, (self.scratch / "head.log").read_text()
                time.sleep(0.2)

    def close(self) -> None:
        # Only this head: `ray stop` would stop every Ray of the machine. What it started names its folder.
        self.process.send_signal(signal.SIGTERM)
        try:
            self.process.wait(5)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait(20)
        for entry in Path("/proc").iterdir():
            if entry.name.isdigit() and str(self.scratch) in command_line(entry):
                with contextlib.suppress(ProcessLookupError):
                    os.kill(int(entry.name), signal.SIGKILL)
        self.log.close()


def command_line(process: Path) -> str:
    try:
        return (process / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
    except OSError:
        return ""


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.fixture(scope="module")
def head() -> Iterator[Head]:
    # Ray's sockets need a short path.
    scratch = Path(tempfile.mkdtemp(prefix="dag-", dir="/tmp"))
    found = Head(scratch)
    try:
        migrate = [str(Path(sys.executable).with_name("airflow")), "db", "migrate"]
        subprocess.run(migrate, env=found.airflow, check=True, capture_output=True)
        found.wait()
        yield found
    finally:
        found.close()
        shutil.rmtree(scratch, ignore_errors=True)


@pytest.fixture(scope="module")
def checkout(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("checkout")
    for package, module, name in (("pipeline", "build", "build"), ("trainer", "run", "train")):
        (folder / package).mkdir()
        (folder / package / "__init__.py").touch()
        (folder / package / f"{module}.py").write_text(STAND_IN.replace("{name}", name), encoding="utf-8")
    return folder


def dag_test(head: Head, corpus: Path | str, checkout: Path, **more: str) -> subprocess.CompletedProcess[str]:
    settings = {"corpus": str(corpus), "working_dir": str(checkout), "python": sys.executable, **more}
    settings = {name: value for name, value in {"spec": "demo", **settings}.items() if value}
    command = [str(Path(sys.executable).with_name("airflow")), "dags", "test", "corpus_build"]
    return subprocess.run(
        [*command, "-f", str(DAGS / "corpus_build.py"), "--conf", json.dumps(settings)],
        env=head.airflow,
        capture_output=True,
        text=True,
        timeout=180,
    )


def calls(corpus: Path) -> list[list[object]]:
    return [json.loads(line) for line in (corpus / "calls.jsonl").read_text(encoding="utf-8").splitlines()]


def test_builds_then_trains(head: Head, checkout: Path, tmp_path: Path) -> None:
    corpus = tmp_path / "my corpus; echo"  # a path that a shell would trip over
    done = dag_test(head, corpus, checkout, recipe="tiny")
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    assert calls(corpus) == [
        ["build", {"--spec": "demo", "--out": str(corpus)}],
        ["train", {"--config": "tiny", "--corpus": str(corpus), "--out": f"{corpus}/train"}],
    ]
    assert "build says hello" in done.stdout + done.stderr


def test_a_job_that_fails_fails_the_run(head: Head, checkout: Path, tmp_path: Path) -> None:
    corpus = tmp_path / "corpus"
    corpus.mkdir()
    (corpus / "train.exit").write_text("2", encoding="utf-8")
    done = dag_test(head, corpus, checkout)
    assert done.returncode != 0
    # Two is the user's mistake: tried once, not again.
    assert "AirflowFailException" in done.stdout + done.stderr
    assert [call[0] for call in calls(corpus)] == ["build", "train"]


@pytest.mark.parametrize(
    ("corpus", "said"),
    [("", "No value passed"), ("out/demo", "'out/demo' does not match '^(/|[a-z][a-z0-9+.-]*://)'")],
)
def test_a_corpus_that_is_none_fails_before_anything_runs(head: Head, checkout: Path, corpus: str, said: str) -> None:
    done = dag_test(head, corpus, checkout)
    assert done.returncode != 0
    lines = (done.stdout + done.stderr).splitlines()
    assert any(line.endswith(f"Invalid input for param corpus: {said}") for line in lines), lines[-5:]


SUBMITTED = """
import json, sys
sys.path.insert(0, sys.argv[1])
import corpus_build
params = {name: corpus_build.dag.params.get_param(name) for name in corpus_build.dag.params}
print(json.dumps([
    {name: param.value if param.has_value else None for name, param in params.items()},
    corpus_build.build.command,
    corpus_build.train.command,
]))
"""


def test_the_real_commands_take_what_is_submitted(tmp_path: Path) -> None:
    environment = {**os.environ, "AIRFLOW_HOME": str(tmp_path), "AIRFLOW__CORE__LOAD_EXAMPLES": "False"}
    done = subprocess.run(
        [sys.executable, "-c", SUBMITTED, str(DAGS)], env=environment, capture_output=True, text=True, check=True
    )
    params, *submitted = json.loads(done.stdout.strip().splitlines()[-1])
    given = params | {"spec": "mmc4", "corpus": "/mnt/shared/mmc4"}
    assert {name for name, value in params.items() if value is None} == {"spec", "corpus"}
    understood = {}
    for words in submitted:
        python, flag, module, *options = (jinja2.Template(word).render(params=given) for word in words)
        assert (python, flag) == ("python", "-m")
        command = typer.main.get_command(importlib.import_module(module).app)
        # Unknown options, missing ones and stray words are errors here; nothing runs.
        understood[module] = command.make_context(module, list(options)).params
    assert understood["pipeline.build"] | {"spec": "mmc4", "out": "/mnt/shared/mmc4"} == understood["pipeline.build"]
    expected = {"config": "demo", "corpus": "/mnt/shared/mmc4", "out": "/mnt/shared/mmc4/train"}
    assert understood["trainer.run"] | expected == understood["trainer.run"]
    assert load_recipe(given["recipe"]).model_fields_set


PROBE = """
import logging, os, sys, time
import airflow.sdk
before = set(sys.modules)
started = time.perf_counter()
sys.path.insert(0, sys.argv[1])
import corpus_build
seconds = time.perf_counter() - started
found = {name.split(".")[0] for name in set(sys.modules) - before}
print(seconds, sorted(found & {"ray", "torch", "pipeline", "trainer", "schemas"}))
"""


def test_parsing_is_quick_and_imports_nothing_heavy(head: Head) -> None:
    done = subprocess.run([sys.executable, "-c", PROBE, str(DAGS)], env=head.airflow, capture_output=True, text=True)
    seconds, heavy = done.stdout.strip().splitlines()[-1].split(" ", 1)
    assert float(seconds) < 2, done.stderr
    assert heavy == "[]"


ATTACH = """
import os, sys
sys.path.insert(0, sys.argv[1])
import corpus_build
from ray.job_submission import JobSubmissionClient
address, token = corpus_build.cluster("ray_default")
task = corpus_build.build
task.working_dir, task.connection, task.poll = "", "ray_default", 0.2
outcomes = []
for run, command in (("first", sys.argv[2]),) * 3 + (("second", "import sys; sys.exit(2)"),):
    task.command = [sys.executable, "-c", command]
    try:
        outcomes.append(task.execute({"run_id": run + "__2026-01-01T00:00:00+00:00"}))
    except Exception as error:
        outcomes.append(type(error).__name__)
# RAY_ADDRESS wins over a connection inside Ray's client, so it is set last.
os.environ["RAY_ADDRESS"] = "http://from-env"
outcomes.append(corpus_build.cluster("no_such_connection"))
print(outcomes)
"""
ONCE = """
import pathlib, sys
tried = pathlib.Path({path!r})
old = tried.read_text() if tried.exists() else ""
tried.write_text(old + "x")
sys.exit(0 if old else 1)
"""


def test_retries_attach_and_number_their_jobs(head: Head, tmp_path: Path) -> None:
    # Fails the first time, succeeds the second; a third execution finds the success and starts nothing.
    job = ONCE.format(path=str(tmp_path / "tried"))
    environment = {**head.airflow, "RAY_AUTH_TOKEN": "from-env"}
    done = subprocess.run(
        [sys.executable, "-c", ATTACH, str(DAGS), job], env=environment, capture_output=True, text=True, timeout=120
    )
    name = "corpus-build.build.first-2026-01-01T00-00-00-00-00"
    expected = ["AirflowException", f"{name}-2", f"{name}-2", "AirflowFailException", ("http://from-env", "from-env")]
    assert done.stdout.strip().splitlines()[-1] == str(expected), done.stderr[-3000:]
    assert (tmp_path / "tried").read_text(encoding="utf-8") == "xx"
