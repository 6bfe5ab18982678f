"""The same command as a job on a Ray cluster: a head of our own on loopback, with token authentication."""

from __future__ import annotations

import json
import os
import secrets
import shutil
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from pathlib import Path

import psutil
import pytest

from pipeline.corpus.version import Corpus
from tests.end_to_end.builds import ROOT, environment, setting, shards
from tests.end_to_end.processes import descendants, left_over

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1500)]
RAY = Path(sys.executable).with_name("ray")
_EXIT_CODE = """
import sys
from ray.job_submission import JobSubmissionClient
info = JobSubmissionClient(sys.argv[1]).get_job_info(sys.argv[2])
print(info.driver_exit_code)
"""


@dataclass(frozen=True)
class Head:
    """A running head node."""

    address: str
    env: dict[str, str]
    folder: Path

    def submit(self, name: str, *entrypoint: str) -> subprocess.CompletedProcess[str]:
        """`ray job submit --working-dir .` from the checkout, as a user types it."""
        command = [RAY, "job", "submit", "--address", self.address, "--submission-id", name, "--working-dir", "."]
        return subprocess.run(
            [*command, "--", *entrypoint], capture_output=True, text=True, cwd=ROOT, env=self.env, timeout=900
        )

    def driver_exit_code(self, name: str) -> int:
        command = [sys.executable, "-c", _EXIT_CODE, self.address, name]
        done = subprocess.run(command, capture_output=True, text=True, env=self.env, timeout=300, check=True)
        return int(done.stdout)


def _free_ports(count: int) -> list[int]:
    with ExitStack() as open_ones:
        sockets = [open_ones.enter_context(socket.socket()) for _ in range(count)]
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return [each.getsockname()[1] for each in sockets]


@pytest.fixture(scope="module")
def head() -> Iterator[Head]:
    # Below /tmp: the paths of Unix sockets are short.
    folder = Path(tempfile.mkdtemp(prefix="il-", dir="/tmp"))
    gcs, dashboard, agent, agent_grpc, client, metrics, runtime = _free_ports(7)
    token = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": secrets.token_hex(32)}
    env = environment(**token, PATH=f"{RAY.parent}{os.pathsep}{os.environ['PATH']}")
    options = {
        "port": gcs,
        "node-ip-address": "127.0.0.1",
        "dashboard-host": "127.0.0.1",
        "dashboard-port": dashboard,
        "dashboard-agent-listen-port": agent,
        "dashboard-agent-grpc-port": agent_grpc,
        "ray-client-server-port": client,
        "metrics-export-port": metrics,
        "runtime-env-agent-port": runtime,
        "num-cpus": 2,
        "object-store-memory": 200_000_000,
        "temp-dir": folder,
    }
    command = [str(RAY), "start", "--head", "--block", *(f"--{name}={value}" for name, value in options.items())]
    address = f"http://127.0.0.1:{dashboard}"
    with open(folder / "head.log", "wb") as log:
        process = psutil.Popen(
            command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, cwd=folder, env=env, start_new_session=True
        )
    try:
        _wait_for(address, token["RAY_AUTH_TOKEN"], process, folder / "head.log")
        yield Head(address, env, folder)
    finally:
        # `ray stop` would end every Ray on the machine, and a request to stop takes the head half a minute.
        family = [process, *descendants(process)]
        for member in family:
            with suppress(psutil.NoSuchProcess):
                member.kill()
        process.wait()
        assert left_over(family, 60) == []
        shutil.rmtree(folder, ignore_errors=True)


def _wait_for(address: str, token: str, process: psutil.Popen, log: Path) -> None:
    request = urllib.request.Request(f"{address}/api/jobs/", headers={"Authorization": f"Bearer {token}"})
    until = time.monotonic() + 300
    while True:
        assert process.poll() is None, log.read_text()
        try:
            with urllib.request.urlopen(request, timeout=10) as answer:
                assert json.load(answer) == []
            return
        except OSError as error:
            assert time.monotonic() < until, f"{error}\n{log.read_text()}"
            time.sleep(0.3)


def test_the_head_turns_strangers_away(head: Head) -> None:
    with pytest.raises(urllib.error.HTTPError, match="401"):
        urllib.request.urlopen(f"{head.address}/api/jobs/", timeout=60)


def test_a_job_makes_the_same_shards_from_other_blocks(head: Head, built: Path, spec: Path, tmp_path: Path) -> None:
    ignored = ROOT / "out" / f"not-for-the-cluster-{secrets.token_hex(4)}"
    ignored.mkdir(parents=True)
    (ignored / "large.bin").write_bytes(b"0")
    try:
        out = tmp_path / "out"
        command = ["python", "-m", "pipeline.build", "--spec", str(spec), "--out", str(out)]
        spread = setting(resources__block_megabytes=0.0005, resources__encoder_workers=1, resources__small_rows=0)
        done = head.submit("whole", *command, *spread)
    finally:
        shutil.rmtree(ignored)
        if not any((ROOT / "out").iterdir()):
            (ROOT / "out").rmdir()
    assert done.returncode == 0, done.stdout + done.stderr
    assert shards(out) == shards(built)
    told = Corpus(str(out)).manifest.spec["resources"]
    assert (told["block_megabytes"], told["encoder_workers"]) == (0.0005, 1)
    assert not list(out.glob(".shared-*")) and not list(out.glob(".probe-*"))
    assert head.driver_exit_code("whole") == 0
    uploaded = [path for path in head.folder.glob("session_*/runtime_resources/working_dir_files/*") if path.is_dir()]
    assert uploaded, "the working directory was not uploaded"
    for package in uploaded:
        names = {path.name for path in package.iterdir()}
        assert {"pipeline", "stages", "schemas"} <= names and not names & {".venv", "out", ".git"}


def test_a_relative_output_is_refused_in_a_job(head: Head, spec: Path) -> None:
    done = head.submit("relative", "python", "-m", "pipeline.build", "--spec", str(spec), "--out", "out/here")
    assert done.returncode == 1
    assert head.driver_exit_code("relative") == 2
    # Ray prints the job's words, and at the end the last of them again.
    said = {line for line in (done.stdout + done.stderr).splitlines() if line.startswith("error: ")}
    assert len(said) == 1 and "Traceback" not in done.stdout + done.stderr
    (line,) = said
    assert line.startswith("error: output: 'out/here' is relative") and "give an absolute path" in line
