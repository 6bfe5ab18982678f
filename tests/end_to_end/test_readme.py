"""Every command that the README and the other pages show is run, here or by a test of its own.

What no test can run (it takes minutes, or a cluster of yours) must at least be a command: its program or module is
there, knows the options, and the spec, the overrides and the recipe it names are valid.
"""

from __future__ import annotations

import ast
import functools
import itertools
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import tomllib
from datetime import date
from pathlib import Path

import pytest
import yaml
from click.testing import CliRunner
from packaging.requirements import Requirement

from pipeline.engine.mistake import UserMistake
from pipeline.spec.loading import find, load, parse
from tests.end_to_end.builds import ROOT, environment, run, run_here
from tests.servers import Site
from trainer.recipe import load_recipe

PAGES = ["README.md", "CONTRIBUTING.md", *sorted(f"docs/{path.name}" for path in (ROOT / "docs").glob("*.md"))]
PROGRAMS = ("airflow", "make", "pip", "python", "ray", "torchrun")

# What other tests run whole; here it is asked for its options alone.
ELSEWHERE = (
    "make install",
    "make check",
    "make test",
    "make soak",
    "make demo",
    "python -m pipeline.demo --serve",
    "python -m assets fetch --group encoders",
    "python -m trainer.run --config recipes/demo.yaml",
    "python -m trainer.generate",
    "python -m pipeline.lit.train",
    "python -m benchmarks.alignment_picture",
    "ray job submit",
    "python -m pip wheel --no-deps",
    "airflow dags test corpus_build_news",
    "airflow dags test corpus_build",
)
# What none runs, and why.
UNRUN = {
    "python -m benchmarks.alignment": "minutes, on a quiet machine",
    "python -m benchmarks.demo": "the demo by the clock: minutes",
    "python -m benchmarks.documents": "minutes, on a quiet machine",
    "python -m benchmarks.extraction": "asks for marked pages, which are not ours to hand on",
    "python -m benchmarks.near_duplicates_peers": "asks for environments that hold the others",
    "python -m benchmarks.pairing": "asks for a folder of HTML pages, which are not ours to hand on",
    "python -m benchmarks.storage_calls": "eight builds: minutes",
    "python -m benchmarks.web": "minutes, on a quiet machine",
    "ray job status": "asks a cluster for a job of yours",
    "ray start": "makes this machine a node of a cluster of yours",
    "pip install": "changes the environment that runs the tests",
}
# What takes many seconds as it stands, and how a smaller run begins.
SMALLER = {
    "python -m benchmarks.damage": "python -m benchmarks.damage --files 20",
    "python -m benchmarks.digests": "python -m benchmarks.digests --rows 20000 --documents 500",
    "python -m benchmarks.near_duplicates --only quality --pairs 8000": (
        "python -m benchmarks.near_duplicates --only quality --pairs 200"
    ),
    "python -m benchmarks.near_duplicates --only beside": (
        "python -m benchmarks.near_duplicates --only beside --documents 2000"
    ),
    "python -m benchmarks.near_duplicates --only scale --documents 1000000": (
        "python -m benchmarks.near_duplicates --only scale --documents 2000"
    ),
    "python -m benchmarks.statistics --rows 100000 --rows 1000000": "python -m benchmarks.statistics --rows 20000",
}


def commands(page: str) -> list[str]:
    """Shell lines of a page: ```sh blocks, indented lines and `code` that begin with a program; without comments."""
    text = (ROOT / page).read_text(encoding="utf-8")
    lines = [line for block in re.findall(r"```sh\n(.*?)```", text, re.S) for line in block.splitlines()]
    text = re.sub(r"```.*?```", "", text, flags=re.S)
    shown = re.findall(r"^    (\S.*)$", text, re.M)
    text = re.sub(r"^    .*$", "", text, flags=re.M)
    shown += [" ".join(code.split()) for code in re.findall(r"`([^`]+)`", text)]
    lines += [line for line in shown if line.startswith(tuple(f"{program} " for program in PROGRAMS))]
    return list(dict.fromkeys(line.split("  #")[0].strip() for line in lines if line.strip()))


def begins(command: str, words: str) -> bool:
    return f"{command} ".startswith(f"{words} ")


def here(command: str) -> bool:
    return not any(begins(command, words) for words in (*ELSEWHERE, *UNRUN))


ALL = list(dict.fromkeys(command for page in PAGES for command in commands(page)))


def test_commands_are_found() -> None:
    assert len(commands("README.md")) >= 12
    assert {command.split()[0] for command in commands("README.md")} == {"airflow", "make", "python", "ray", "torchrun"}
    assert {page for page in PAGES if not commands(page)} == set()
    assert {command.split()[0] for command in ALL} == set(PROGRAMS)


@pytest.mark.parametrize("words", [*ELSEWHERE, *UNRUN])
def test_no_exception_is_made_for_what_no_page_shows(words: str) -> None:
    assert any(begins(command, words) for command in ALL)


@pytest.mark.usefixtures("local_ray")
@pytest.mark.parametrize("command", [each for each in ALL if here(each)])
def test_command(command: str, built: Path, spec: Path, site: Site, tmp_path: Path) -> None:
    """As written, but for the demo's corpus, spec and site, which a small one stands for."""
    corpus = tmp_path / "corpus"
    shutil.copytree(built, corpus)
    command = command.replace("out/demo", str(corpus)).replace("out/tiny", str(tmp_path / "tiny"))
    command = command.replace("http://127.0.0.1:18780/sasview/index.html", f"{site.url}/print-0.html")
    if "--dry-run" not in command or "gc" in command:
        command = command.replace("specs/demo.yaml", str(spec)).replace("num_words.min=400", "num_words.min=30")
    for whole, smaller in SMALLER.items():
        if begins(command, whole):
            command = smaller + command.removeprefix(whole)
    words = shlex.split(command)
    if words[0] == "python":
        run_here(*words[2:]).check()
    else:
        program = str(Path(sys.executable).with_name(words[0]))
        env = environment(PATH=f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}")
        done = subprocess.run([program, *words[1:]], cwd=ROOT, env=env, capture_output=True, text=True, timeout=550)
        assert done.returncode == 0, done.stdout + done.stderr


@functools.cache
def options_of(*words: str) -> frozenset[str]:
    """Options that the --help of a program, or of a command of its, names."""
    if words[0] == "python":
        # The trainer's modules listen for signals from their first line on.
        ask = run if words[1].startswith("trainer.") else run_here
        said = ask(*words[1:], "--help").check().out
    elif words[0] == "ray":
        from ray.scripts.scripts import cli as ray_cli

        done = CliRunner().invoke(ray_cli, [*words[1:], "--help"])
        assert done.exit_code == 0, done.output
        said = done.output
    else:
        program = str(Path(sys.executable).with_name(words[0]))
        said = subprocess.run(
            [program, *words[1:], "--help"], env=environment(), capture_output=True, text=True, check=True, timeout=120
        ).stdout
    return frozenset(re.findall(r"--[a-z][a-z_-]*", said))


def values_of(words: list[str], option: str) -> list[str]:
    return [value for name, value in itertools.pairwise(words) if name == option]


def check(words: list[str]) -> None:
    """Fails unless the words are a command that its program accepts, as far as that can be told without running it."""
    if words[0] == "make":
        subprocess.run(["make", "--dry-run", *words[1:]], cwd=ROOT, check=True, capture_output=True, timeout=60)
        return
    if words[0] == "pip":
        project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
        assert words[1] == "install" and len(words) == 3
        if words[2] == f"dist/{project['name']}-*.whl":
            return  # tests/test_wheel.py makes it
        # No index carries the project itself: what is installed from one is what it depends on.
        wanted = Requirement(words[2])
        (needed,) = (each for each in map(Requirement, project["dependencies"]) if each.name == wanted.name)
        assert wanted.extras <= needed.extras and wanted.specifier == needed.specifier
        return
    own, mark, submitted = words, "", list[str]()
    if words[0] == "ray" and "--" in words:
        own, mark, submitted = words[: words.index("--")], "--", words[words.index("--") + 1 :]
    given = [word.partition("=")[0] for word in own if word.startswith("--")]
    if words[0] == "python":
        assert words[1] == "-m"
        program, own = ["python", words[2]], words[3:]
    else:
        program, own = [words[0]], own[1:]
    named = own[: next((at for at, word in enumerate(own) if word.startswith("-")), len(own))]
    # Of Airflow's words two are the command: the others name what it is about.
    assert set(given) <= options_of(*program, *(named[:2] if words[0] == "airflow" else named))
    for path in values_of(own, "--spec"):
        load(path, values_of(own, "--set"))
    for path in values_of(own, "--config"):
        load_recipe(path)
    if words[0] == "airflow":
        dag, *dates = named[2:]
        if dates:
            # A run of the DAG that a spec on the page gives.
            shown = re.findall(r"^name: (\S+)$", (ROOT / "docs/cluster.md").read_text(encoding="utf-8"), re.M)
            assert dag in {f"corpus_build_{name}" for name in shown} and [date.fromisoformat(each) for each in dates]
        else:
            check_dag(dag, json.loads(values_of(own, "--conf")[0]) if "--conf" in own else {})
    if mark:
        check(submitted)


def check_dag(name: str, conf: dict[str, str]) -> None:
    """The configuration of a run gives a DAG's parameters, among them those without a default."""
    tree = ast.parse((ROOT / "dags" / f"{name}.py").read_text(encoding="utf-8"))
    (params,) = (each.value for each in ast.walk(tree) if isinstance(each, ast.keyword) and each.arg == "params")
    assert isinstance(params, ast.Dict)
    known = {ast.literal_eval(k): v for k, v in zip(params.keys, params.values, strict=True) if k is not None}
    required = {param for param, call in known.items() if isinstance(call, ast.Call) and not call.args}
    assert required and required <= set(conf) <= set(known)
    find(conf["spec"])


@pytest.mark.parametrize("command", [each for each in ALL if not here(each)])
def test_what_is_not_run_here_is_a_command(command: str) -> None:
    check(shlex.split(command))


@pytest.mark.parametrize(
    "command",
    [
        "make everything",
        "pip install interloom",
        "pip install ray[serve]>=2.60,<2.61",
        "python -m pipeline.nothing",
        "python -m pipeline.build --specs demo",
        "python -m pipeline.build --spec nowhere.yaml",
        "python -m pipeline.build --spec demo --set mine.topk=3",
        "ray job submit --working-dir . -- python -m pipeline.build --specification demo",
        "ray job submit --workingdir . -- python -m pipeline.build",
        "airflow dags test corpus_build",
        "airflow dags test corpus_build_olds 2026-11-30",
        """airflow dags test corpus_build --conf '{"spec": "demo", "corpus": "/x", "colour": "red"}'""",
    ],
)
def test_what_is_no_command_is_noticed(command: str) -> None:
    with pytest.raises((AssertionError, ValueError, subprocess.CalledProcessError, UserMistake)):
        check(shlex.split(command))


@pytest.mark.parametrize(
    ("page", "code"),
    [
        pytest.param(page, code, id=f"{page}-{number}")
        for page in PAGES
        for number, code in enumerate(
            re.findall(r"```python\n(.*?)```", (ROOT / page).read_text(encoding="utf-8"), re.S)
        )
    ],
)
def test_python(page: str, code: str, built: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Code blocks run as they stand, on a small corpus in the demo's place."""
    import datasets

    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "datasets")
    monkeypatch.setattr(datasets.config, "HF_DATASETS_OFFLINE", True)
    exec(compile(code.replace("out/demo", str(built)), page, "exec"), {"__name__": "__main__"})


def test_the_spec_it_shows_is_valid() -> None:
    (text,) = re.findall(r"```yaml\n(name: my-site.*?)```", (ROOT / "README.md").read_text(), re.S)
    assert parse("README.md", text).source.kind == yaml.safe_load(text)["source"]["kind"]
