"""A DAG for every spec with a schedule: parsed by Airflow, run by `airflow dags test` and by a real scheduler."""

from __future__ import annotations

import contextlib
import importlib.util
import io
import json
import os
import re
import shlex
import signal
import subprocess
import sys
import time
import zipfile
from collections.abc import Iterator
from datetime import date, datetime
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
import typer
import yaml
from hypothesis import given
from hypothesis import strategies as st

from pipeline.build import app
from pipeline.engine.mistake import UserMistake
from pipeline.spec.loading import Spec, parse
from tests.dags.jobs_server import JobsServer, jobs_server
from tests.dags.test_corpus_build import DAGS, free_port

AIRFLOW = str(Path(sys.executable).with_name("airflow"))
SCHEDULE: dict[str, Any] = {"cron": "0 6 * * *", "start": "2026-11-01"}


def spec_with(schedule: object, name: str = "news", url: str = "") -> dict[str, Any]:
    source = {"kind": "site", "seeds": ["https://example.org/"]}
    return {"name": name, "output": {"url": url or f"/mnt/{name}"}, "source": source, "schedule": schedule}


def home(folder: Path, specs: Path, **more: str) -> dict[str, str]:
    """Environment of an Airflow of this test's own."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("RAY_", "AIRFLOW"))}
    return kept | {
        "AIRFLOW_HOME": str(folder),
        "AIRFLOW__CORE__DAGS_FOLDER": str(DAGS),
        "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
        "AIRFLOW__CORE__UNIT_TEST_MODE": "False",
        "INTERLOOM_SPECS": str(specs),
        "RAY_USAGE_STATS_ENABLED": "0",
        **more,
    }


@pytest.fixture(scope="module")
def dag_file(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ModuleType]:
    """The DAG file as a module, with no specs in sight."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("AIRFLOW_HOME", str(tmp_path_factory.mktemp("airflow")))
        patch.setenv("AIRFLOW__CORE__LOAD_EXAMPLES", "False")
        patch.delenv("INTERLOOM_SPECS", raising=False)
        found = importlib.util.spec_from_file_location("corpus_build_under_test", DAGS / "corpus_build.py")
        assert found and found.loader
        module = importlib.util.module_from_spec(found)
        patch.setitem(sys.modules, found.name, module)
        found.loader.exec_module(module)
        yield module


def test_without_specs_there_is_the_dag_by_hand_alone(dag_file: ModuleType) -> None:
    assert list(dag_file.scheduled_builds()) == []


PARSE = """
import json, sys
from airflow.dag_processing.dagbag import DagBag
bag = DagBag(sys.argv[1])
print(json.dumps([
    {name: [dag.description, dag.catchup, dag.max_active_runs, sorted(dag.task_dict),
            dag.start_date and dag.start_date.isoformat()]
     for name, dag in bag.dags.items()},
    bag.import_errors,
    [line for lines in bag.captured_warnings.values() for line in lines],
]))
"""


def test_one_spec_at_fault_leaves_the_others_their_dags(tmp_path: Path) -> None:
    specs = tmp_path / "specs"
    specs.mkdir()
    full = SCHEDULE | {"timezone": "Europe/Berlin", "catchup": True, "retention": 3, "train": "demo"}
    texts = {
        "a.yaml": yaml.safe_dump(spec_with(full, "a")),
        "b.yml": yaml.safe_dump(spec_with({"cron": "@hourly", "start": date(2026, 11, 1)}, "b")),
        "by-hand.yaml": "name: by-hand\noutput: {url: out/by-hand}\n",
        "null.yaml": yaml.safe_dump(spec_with(None, "nothing")),
        "notes.txt": "schedule: [",
        "f-alias.yaml": "a: &a [x, x, x, x]\nb: &b [*a, *a, *a, *a]\nc: &c [*b, *b, *b, *b]\n"
        "d: &d [*c, *c, *c, *c]\nname: f\noutput: {url: *d}\nschedule: {cron: 0 6 * * *, start: 2026-11-01}\n",
        "f-bytes.yaml": b"name: \xff\nschedule: {}\n",
        "f-cron.yaml": yaml.safe_dump(spec_with(SCHEDULE | {"cron": "0 99 * * *"}, "f-cron")),
        "f-deep.yaml": "schedule: " + "[" * 3000,
        "f-field.yaml": yaml.safe_dump(spec_with(SCHEDULE | {"crom": "@daily"}, "f-field")),
        "f-list.yaml": "- schedule\n",
        "f-name.yaml": yaml.safe_dump(spec_with(SCHEDULE, "a", "/mnt/other")),
        "f-output.yaml": yaml.safe_dump(spec_with(SCHEDULE, "other", "/mnt/a/")),
        "f-relative.yaml": yaml.safe_dump(spec_with(SCHEDULE, "f-relative", "out/x")),
        "f-train.yaml": yaml.safe_dump(spec_with(SCHEDULE | {"train": "demo"}, "f-train", "s3://bucket/x")),
        "f-where.yaml": yaml.safe_dump(spec_with(SCHEDULE | {"working_dir": "/elsewhere"}, "f-where")),
        "f-yaml.yaml": "name: f\nschedule: [\n",
    }
    for name, text in texts.items():
        (specs / name).write_bytes(text if isinstance(text, bytes) else text.encode())
    command = [sys.executable, "-c", PARSE, str(DAGS / "corpus_build.py")]
    done = subprocess.run(command, env=home(tmp_path / "home", specs), capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr[-3000:]
    dags, errors, warned = json.loads(done.stdout.strip().splitlines()[-1])
    assert set(dags) == {"corpus_build", "corpus_build_a", "corpus_build_b", "corpus_build.faults"}
    # An import error of the file would make Airflow's scheduler leave all of its DAGs alone.
    assert errors == {}
    assert dags["corpus_build_a"][1:] == [True, 1, ["build", "collect", "train"], "2026-10-31T23:00:00+00:00"]
    assert dags["corpus_build_b"][1:4] == [False, 1, ["build"]]
    lines = dags["corpus_build.faults"][0].splitlines()
    expected = [
        ("f-alias.yaml", "output.url: "),
        ("f-bytes.yaml", "'utf-8' codec can't decode"),
        ("f-cron.yaml", "schedule.cron: "),
        ("f-deep.yaml", ""),
        ("f-field.yaml", "schedule.crom: "),
        ("f-list.yaml", "a spec is a mapping"),
        ("f-name.yaml", "name: a is that of a.yaml already"),
        ("f-output.yaml", "output.url: /mnt/a is that of a.yaml already"),
        ("f-relative.yaml", "output.url: "),
        ("f-train.yaml", "schedule.train: "),
        ("f-where.yaml", "schedule.working_dir: "),
        ("f-yaml.yaml", "not YAML: "),
    ]
    assert len(lines) == len(warned) == len(expected)
    for line, (name, said) in zip(lines, expected, strict=True):
        assert line.startswith(f"{specs / name}: {said}") and len(line) < 450
        assert any(line in each for each in warned)


def test_a_folder_that_is_none_leaves_the_dag_by_hand(
    dag_file: ModuleType, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("INTERLOOM_SPECS", str(tmp_path / "nowhere"))
    with pytest.warns(UserWarning, match="INTERLOOM_SPECS: .*nowhere"):
        (found,) = dag_file.scheduled_builds()
    assert found.dag_id == "corpus_build.faults"


def test_specs_beside_the_file_need_no_variable(
    dag_file: ModuleType, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "specs").mkdir()
    (tmp_path / "specs" / "news.yaml").write_text(yaml.safe_dump(spec_with(SCHEDULE)), encoding="utf-8")
    monkeypatch.delenv("INTERLOOM_SPECS", raising=False)
    monkeypatch.setattr(dag_file, "__file__", str(tmp_path / "corpus_build.py"))
    assert [dag.dag_id for dag in dag_file.scheduled_builds()] == ["corpus_build_news"]


CRONS = st.one_of(
    st.text("0123456789*/,-LRHr #@?adnow", max_size=20),
    st.lists(st.text("0123456789*/,-LR#?", min_size=1, max_size=4), min_size=4, max_size=6).map(" ".join),
    st.sampled_from(["@daily", "@hourly", "@nonsense", "0 0 31 2 *", "0 0 29 2 *", "0 0 * * mon-fri", "r 0 * * *"]),
)
FIELDS = {
    "cron": CRONS,
    "start": st.one_of(st.dates(), st.datetimes(), st.dates().map(str), st.text(max_size=10), st.integers()),
    "timezone": st.sampled_from(["UTC", "Europe/Berlin", "Mars/Base", "", "../UTC", None, 1]),
    "catchup": st.sampled_from([True, False, "yes", 0, None]),
    "retention": st.sampled_from([1, 10**6, 0, -1, 10**7, 1.5, "3", None, True]),
    "train": st.sampled_from(["demo", "", None, 3, "a\0b"]),
    "connection": st.sampled_from(["ray_default", "", None]),
    "working_dir": st.sampled_from(["/x", "x", "", None]),
    "python": st.sampled_from(["python3", "", None]),
    "crn": st.just("0 6 * * *"),
}


@given(st.sampled_from(sorted(FIELDS)).flatmap(lambda name: FIELDS[name].map(lambda value: (name, value))))
def test_airflow_and_the_build_agree_on_what_a_schedule_is(dag_file: ModuleType, field: tuple[str, object]) -> None:
    """Two models, as the DAG file is copied to where the package is not: one verdict, one set of values."""
    data = spec_with(SCHEDULE | dict([field]))
    try:
        ours = Spec.model_validate(data).schedule
    except ValueError as error:
        with pytest.raises(ValueError) as theirs:
            dag_file.Spec.model_validate(data)
        assert [each["loc"] for each in theirs.value.errors()] == [each["loc"] for each in error.errors()]  # type: ignore[attr-defined]
    else:
        assert ours is not None
        assert dag_file.Spec.model_validate(data).schedule.model_dump() == ours.model_dump()


@pytest.mark.parametrize(
    ("field", "said"),
    [
        ("cron=0 99 * * *", "schedule.cron: .* out of range"),
        ("cron=0 0 31 2 *", "schedule.cron: .*this day never comes"),
        ("cron=R * * * *", "schedule.cron: .*drawn by lot"),
        ("cron='* * * * * *'", "schedule.cron: .*write minute, hour, day, month and weekday"),
        ("start=soon", "schedule.start: "),
        ("timezone=Mars/Base", "schedule.timezone: invalid timezone: Mars/Base"),
        ("retentoin=3", "schedule.retentoin: unknown field; did you mean 'retention'"),
    ],
)
def test_a_mistake_in_a_schedule_is_one_line(field: str, said: str) -> None:
    with pytest.raises(UserMistake, match=f"^news.yaml: {said}"):
        parse("news.yaml", yaml.safe_dump(spec_with(SCHEDULE)), [f"schedule.{field}"])


def test_the_schedule_that_the_docs_show_is_one(dag_file: ModuleType) -> None:
    page = (DAGS.parent / "docs" / "cluster.md").read_text(encoding="utf-8")
    (text,) = re.findall(r"```yaml\n(name: news.*?)```", page, re.S)
    shown = parse("cluster.md", text).schedule
    assert shown is not None
    assert dag_file.Spec.model_validate(yaml.safe_load(text)).schedule.model_dump() == shown.model_dump()


def test_a_schedule_comes_back_from_the_card() -> None:
    once = parse("news.yaml", yaml.safe_dump(spec_with(SCHEDULE | {"timezone": "Europe/Berlin"})))
    assert parse("card", yaml.safe_dump(once.model_dump(mode="json"))) == once


@pytest.mark.parametrize(
    ("cron", "moment", "name"),
    [
        ("0 6 * * *", "2026-11-28T05:00:00+00:00", "2026-11-28"),
        ("30 0 * * 1", "2026-11-29T23:30:00+00:00", "2026-11-30"),  # the day where the schedule lives
        ("@daily", "2026-11-28T23:00:00+00:00", "2026-11-29"),
        ("0 */6 * * *", "2026-11-28T05:00:00+00:00", "2026-11-28T06:00+01:00"),
        ("@hourly", "2026-10-25T00:00:00+00:00", "2026-10-25T02:00+02:00"),
        ("@hourly", "2026-10-25T01:00:00+00:00", "2026-10-25T02:00+01:00"),  # the clocks went back
        ("0,30 6 * * *", "2026-11-28T05:30:00+00:00", "2026-11-28T06:30+01:00"),
    ],
)
def test_snapshots_are_named_by_the_date(dag_file: ModuleType, cron: str, moment: str, name: str) -> None:
    schedule = dag_file.Schedule(cron=cron, start="2026-11-01", timezone="Europe/Berlin")
    when = datetime.fromisoformat(moment)
    assert schedule.snapshot(SimpleNamespace(data_interval_start=when, run_after=None)) == name
    assert schedule.snapshot(SimpleNamespace(data_interval_start=None, run_after=when)) == name
    # The build takes it for text, and not for a date.
    text = yaml.safe_dump(spec_with(None))
    assert parse("news.yaml", text, [f'source.snapshot="{name}"']).source.snapshot == name


@pytest.fixture(scope="module")
def jobs() -> Iterator[JobsServer]:
    with jobs_server() as server:
        yield server


def connection(server: JobsServer) -> dict[str, str]:
    return {"AIRFLOW_CONN_RAY_DEFAULT": json.dumps({"conn_type": "http", "host": "127.0.0.1", "port": server.port})}


def test_a_dated_run_submits_its_commands(jobs: JobsServer, tmp_path: Path) -> None:
    specs = tmp_path / "specs"
    specs.mkdir()
    corpus = "/mnt/{{ my }} news; echo"  # what a shell and a template would trip over
    schedule = SCHEDULE | {"retention": 3, "train": "tiny", "python": "python3"}
    (specs / "news.yaml").write_text(yaml.safe_dump(spec_with(schedule, url=corpus)), encoding="utf-8")
    (specs / "broken.yaml").write_text("schedule: [", encoding="utf-8")
    env = home(tmp_path / "home", specs, **connection(jobs))
    subprocess.run([AIRFLOW, "db", "migrate"], env=env, check=True, capture_output=True)
    command = [AIRFLOW, "dags", "test", "corpus_build_news", "2026-11-28T06:00:00", "-f", str(DAGS / "corpus_build.py")]
    done = subprocess.run(command, env=env, capture_output=True, text=True, timeout=400)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    words = [shlex.split(job["entrypoint"]) for job in jobs.submitted]
    build = ["python3", "-m", "pipeline.build", "--spec", "news.yaml", "--set", 'source.snapshot="2026-11-28"']
    assert words[0] == build
    assert sorted(words[1:]) == [
        ["python3", "-m", "pipeline.gc", "--corpus", corpus, "--keep", "3"],
        ["python3", "-m", "trainer.run", "--config", "tiny", "--corpus", corpus, "--out", f"{corpus}/train/2026-11-28"],
    ]
    # The spec travels with the job.
    (package,) = jobs.packages.values()
    assert zipfile.ZipFile(io.BytesIO(package)).read("news.yaml") == (specs / "news.yaml").read_bytes()
    taken = typer.main.get_command(app).make_context("build", build[3:]).params
    assert parse("news.yaml", (specs / "news.yaml").read_text(), taken["set_"]).source.snapshot == "2026-11-28"


@contextlib.contextmanager
def running(services: list[list[str]], env: dict[str, str], log: Path) -> Iterator[None]:
    """Airflow's services while the block runs; each leads a group, which ends with it."""
    processes: list[subprocess.Popen[bytes]] = []
    try:
        with log.open("wb") as output:
            for service in services:
                command = [AIRFLOW, *service]
                processes.append(
                    subprocess.Popen(command, env=env, stdout=output, stderr=output, start_new_session=True)
                )
        yield
    finally:
        for sent in (signal.SIGTERM, signal.SIGKILL):
            for process in processes:
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(process.pid, sent)
            for process in processes:
                with contextlib.suppress(subprocess.TimeoutExpired):
                    process.wait(10)


def test_a_scheduler_fires_a_run_that_is_due(tmp_path: Path) -> None:
    specs = tmp_path / "specs"
    specs.mkdir()
    # Without catch-up a run that is due since New Year is due at once, and it is one.
    schedule = {"cron": "0 0 1 1 *", "start": "2020-01-01"}
    (specs / "news.yaml").write_text(yaml.safe_dump(spec_with(schedule)), encoding="utf-8")
    (specs / "broken.yaml").write_text("schedule: [", encoding="utf-8")
    port = free_port()
    with jobs_server() as jobs:
        env = home(
            tmp_path / "home",
            specs,
            **connection(jobs),
            AIRFLOW__API__HOST="127.0.0.1",
            AIRFLOW__API__PORT=str(port),
            AIRFLOW__API__BASE_URL=f"http://127.0.0.1:{port}",
            AIRFLOW__API__WORKERS="1",
            AIRFLOW__API_AUTH__JWT_SECRET="a secret of this test alone, long enough for any hash that signs with it",
            AIRFLOW__CORE__EXECUTION_API_SERVER_URL=f"http://127.0.0.1:{port}/execution/",
            AIRFLOW__CORE__EXECUTOR="LocalExecutor",
            AIRFLOW__CORE__PARALLELISM="1",
            AIRFLOW__CORE__DAGS_ARE_PAUSED_AT_CREATION="False",
            AIRFLOW__SCHEDULER__ENABLE_HEALTH_CHECK="False",
            AIRFLOW__SCHEDULER__SCHEDULER_HEARTBEAT_SEC="1",
        )
        subprocess.run([AIRFLOW, "db", "migrate"], env=env, check=True, capture_output=True)
        services = [["api-server", "--apps", "execution"], ["dag-processor"], ["scheduler"]]
        log = tmp_path / "airflow.log"
        with running(services, env, log):
            limit = time.monotonic() + 300  # half a minute where nobody else works
            while not jobs.submitted:
                assert time.monotonic() < limit, log.read_text(errors="replace")[-5000:]
                time.sleep(0.2)
    (job,) = jobs.submitted
    words = shlex.split(job["entrypoint"])
    assert words[:5] == ["python", "-m", "pipeline.build", "--spec", "news.yaml"]
    assert words[6] in {f'source.snapshot="{datetime.now().year - late}-01-01"' for late in (0, 1)}
    assert job["submission_id"].startswith("corpus-build-news.build.scheduled-")
