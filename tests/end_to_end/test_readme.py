"""Every command that the README shows is run, here or by the test named beside it."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from pipeline.spec import parse
from tests.end_to_end.builds import ROOT, environment, run
from tests.servers import Site

# What another test runs: the README's words, and where.
ELSEWHERE = {
    "make test": (".ci/run", "make test"),
    "make demo": ("tests/end_to_end/test_demo.py", "def test_the_demo_from_nothing_and_again"),
    "python -m trainer.run --config recipes/demo.yaml": ("tests/end_to_end/test_demo.py", "pipeline.demo"),
    "ray job submit": ("tests/end_to_end/test_job.py", "def test_a_job_makes_the_same_shards_from_other_blocks"),
    "airflow dags test corpus_build": ("tests/dags/test_corpus_build.py", "def test_builds_then_trains"),
}


def commands() -> list[str]:
    """The README's shell lines: ```sh blocks, and indented make lines; comments taken off."""
    text = (ROOT / "README.md").read_text()
    lines = [line for block in re.findall(r"```sh\n(.*?)```", text, re.S) for line in block.splitlines()]
    lines += re.findall(r"^    (make .*)$", text, re.M)
    return [line.split("  #")[0].strip() for line in lines if line.strip()]


def here(command: str) -> bool:
    return not any(command.startswith(words) for words in ELSEWHERE)


def test_commands_are_found() -> None:
    assert len(commands()) >= 12
    assert {command.split()[0] for command in commands()} == {"airflow", "make", "python", "ray", "torchrun"}


@pytest.mark.parametrize("words", sorted(ELSEWHERE))
def test_what_runs_elsewhere_is_there(words: str) -> None:
    assert any(command.startswith(words) for command in commands())
    file, marker = ELSEWHERE[words]
    assert marker in (ROOT / file).read_text()


@pytest.mark.parametrize("command", [each for each in commands() if here(each)])
def test_command(command: str, built: Path, spec: Path, site: Site, tmp_path: Path) -> None:
    """As written, but for the demo's corpus, spec and site, which a small one stands for."""
    corpus = tmp_path / "corpus"
    shutil.copytree(built, corpus)
    command = command.replace("out/demo", str(corpus)).replace("out/tiny", str(tmp_path / "tiny"))
    command = command.replace("http://127.0.0.1:18780/sasview/index.html", f"{site.url}/print-0.html")
    if "--dry-run" not in command or "gc" in command:
        command = command.replace("specs/demo.yaml", str(spec)).replace("num_words.min=50", "num_words.min=30")
    words = shlex.split(command)
    if words[0] == "python":
        run(*words[2:]).check()
    else:
        program = str(Path(sys.executable).with_name(words[0]))
        env = environment(PATH=f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}")
        done = subprocess.run([program, *words[1:]], cwd=ROOT, env=env, capture_output=True, text=True, timeout=550)
        assert done.returncode == 0, done.stdout + done.stderr


def test_the_spec_it_shows_is_valid() -> None:
    (text,) = re.findall(r"```yaml\n(name: my-site.*?)```", (ROOT / "README.md").read_text(), re.S)
    assert parse("README.md", text).source.kind == yaml.safe_load(text)["source"]["kind"]
