"""Corpus, then model: the build and the training as jobs of a Ray cluster, on a schedule of Airflow's.

    airflow dags test corpus_build --conf '{"spec": "mmc4", "corpus": "/mnt/shared/mmc4"}'

The two commands run on the cluster (`python -m pipeline.build ...`, `python -m trainer.run ...`), in an image that
has interloom installed or with `working_dir`, a checkout that Ray uploads. Airflow only submits them through the
Jobs API, follows their logs and fails when they fail: a job that says the user is at fault (exit code 2) at once,
any other after the retries.

Where the cluster is: the connection of the parameter `connection` (host http://head:8265, password the cluster's
authentication token), or without such a connection RAY_ADDRESS and RAY_AUTH_TOKEN of the worker's environment.
`corpus` and `run` must be storage that every node of the cluster sees. `spec` and `corpus` have no default: no corpus
can be built everywhere, or anywhere.

Beside this DAG, which is triggered by hand, every spec of the folder INTERLOOM_SPECS (or of `specs` beside this file)
that has a section `schedule` gives a DAG of its own, corpus_build_<name>. Each of its runs builds the corpus under a
snapshot named by the run's date. A spec at fault is a line of the DAG corpus_build.faults; the others stay.
"""

from __future__ import annotations

import os
import re
import reprlib
import shlex
import time
import warnings
from datetime import date, datetime, timedelta
from datetime import time as clock
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any
from zoneinfo import ZoneInfo

import yaml
from airflow.sdk import DAG, BaseHook, BaseOperator, CronTriggerTimetable, Param
from airflow.sdk.exceptions import AirflowException, AirflowFailException, AirflowNotFoundException
from croniter import CroniterBadDateError, croniter
from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, ValidationError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from ray.job_submission import JobSubmissionClient

USER_ERROR = 2  # the exit code of both commands for a mistake that no retry mends
LIVE = ("PENDING", "RUNNING")
ABSOLUTE = "^(/|[a-z][a-z0-9+.-]*://)"  # a job's working directory is gone when the job is


class RayJob(BaseOperator):
    """One command as one Ray job.

    The submission id is made of DAG, run and task, and a number: a retry of the task, or a worker that takes over
    from a lost one, finds the job it meant and attaches to it while it lives, takes its success as its own, and
    submits the next number only after a failure.

    command: words of the command, templated; empty words are left out.
    working_dir: folder to upload, templated; empty for none.
    poll: seconds between looks at the job.
    """

    template_fields: Sequence[str] = ("command", "working_dir", "connection")

    def __init__(
        self, *, command: list[str], connection: str, working_dir: str = "", poll: float = 2.0, **kwargs: Any
    ) -> None:
        super().__init__(**kwargs)
        self.command, self.connection, self.working_dir, self.poll = command, connection, working_dir, poll
        self._job: str | None = None

    def execute(self, context: Any) -> str:
        """Submit or attach, follow the log to the end; returns the submission id."""
        client = self._client()
        run = context["run_id"]
        job = self._attach_or_submit(client, submission_name(self.dag_id, run, self.task_id))
        self._job = job
        self.log.info("Ray job %s: %s", job, shlex.join(word for word in self.command if word))
        seen = 0
        while True:
            status = client.get_job_status(job)
            seen = self._show_log(client.get_job_logs(job), seen)
            if status not in LIVE:
                break
            time.sleep(self.poll)
        self._job = None
        if status == "SUCCEEDED":
            return job
        details = client.get_job_info(job)
        message = f"Ray job {job} {status}: {details.message}"
        if details.driver_exit_code == USER_ERROR:
            raise AirflowFailException(f"{message} (exit code {USER_ERROR}: the command's last line says what to mend)")
        raise AirflowException(message)

    def on_kill(self) -> None:
        """Stop the job when the task is killed."""
        if self._job:
            self._client().stop_job(self._job)

    def _client(self) -> JobSubmissionClient:
        # Imported here: parsing the file must stay quick, and Ray takes seconds.
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
        from ray.job_submission import JobSubmissionClient

        address, token = cluster(self.connection)
        if address:
            os.environ["RAY_ADDRESS"] = address  # Ray's client lets the variable win over its argument
        return JobSubmissionClient(address, headers={"Authorization": f"Bearer {token}"} if token else None)

    def _attach_or_submit(self, client: JobSubmissionClient, name: str) -> str:
        known = {found.submission_id: found.status for found in client.list_jobs()}
        number = 1
        while known.get(f"{name}-{number}", "SUCCEEDED") not in ("SUCCEEDED", *LIVE):
            number += 1
        job = f"{name}-{number}"
        if job in known:
            self.log.info("attaching to %s, which is %s", job, known[job])
            return job
        runtime = {"env_vars": {"RAY_USAGE_STATS_ENABLED": "0"}}
        if self.working_dir:
            runtime["working_dir"] = self.working_dir
        words = [word for word in self.command if word]
        return client.submit_job(entrypoint=shlex.join(words), submission_id=job, runtime_env=runtime)

    def _show_log(self, text: str, seen: int) -> int:
        """Print whole new lines of the job's log; returns how much of it has been shown."""
        end = text.rfind("\n") + 1
        for line in text[seen:end].splitlines():
            self.log.info("%s", line)
        return max(seen, end)


def submission_name(dag: str, run: str, task: str) -> str:
    """The deterministic part of a submission id: letters, digits, dots and dashes."""
    return re.sub(r"[^A-Za-z0-9.]+", "-", f"{dag}.{task}.{run}").strip("-")


def cluster(connection: str) -> tuple[str | None, str | None]:
    """(address of the Jobs API, token) of a connection, or of the environment when there is no such connection."""
    try:
        found = BaseHook.get_connection(connection)
    except AirflowNotFoundException:
        return os.environ.get("RAY_ADDRESS"), os.environ.get("RAY_AUTH_TOKEN")
    address = found.host or ""
    if "://" not in address:
        address = f"{found.schema or 'http'}://{address}"
    if found.port:
        address = f"{address}:{found.port}"
    return address, found.password or None


TRIES = {"retries": 1, "retry_delay": timedelta(minutes=1)}

with DAG(
    dag_id="corpus_build",
    description="Build a corpus on a Ray cluster, then train on its shards.",
    schedule=None,
    catchup=False,
    max_active_runs=1,  # two builds of one corpus folder would wait for each other's rows
    default_args=TRIES,
    params={
        "spec": Param(type="string", minLength=1, description="Corpus spec: a packaged name or a path on the cluster."),
        "recipe": Param("demo", type="string", description="Training recipe: a packaged name or a path."),
        "corpus": Param(type="string", pattern=ABSOLUTE, description="Corpus: a folder or URL that every node sees."),
        "run": Param("", type="string", description="Run folder; empty for <corpus>/train."),
        "connection": Param("ray_default", type="string", description="Airflow connection of the cluster."),
        "working_dir": Param("", type="string", description="Checkout to upload; empty when the image has interloom."),
        "python": Param("python", type="string", description="Interpreter on the cluster."),
    },
    tags=["interloom"],
    doc_md=__doc__,
) as dag:
    shared = {"connection": "{{ params.connection }}", "working_dir": "{{ params.working_dir }}"}
    build = RayJob(
        task_id="build",
        command=[
            "{{ params.python }}", "-m", "pipeline.build",
            "--spec", "{{ params.spec }}", "--out", "{{ params.corpus }}",
        ],
        **shared,
    )  # fmt: skip
    train = RayJob(
        task_id="train",
        command=[
            "{{ params.python }}", "-m", "trainer.run",
            "--config", "{{ params.recipe }}", "--corpus", "{{ params.corpus }}",
            "--out", "{{ params.run or params.corpus + '/train' }}",
        ],
        **shared,
    )  # fmt: skip
    build >> train


def due(cron: str) -> str:
    """A cron expression that comes due; ValueError for one that is none, that never does, or that is drawn by lot."""
    if len(cron.split()) != 5 and not cron.startswith("@"):
        raise ValueError("write minute, hour, day, month and weekday, as in 0 6 * * 1, or @daily or the like")
    if re.search(r"(?<![a-z])[hr](?![a-z])", cron.lower()):
        raise ValueError("H and R stand for moments drawn by lot, which are others at every look")
    try:
        croniter(cron).get_next()
    except CroniterBadDateError:
        raise ValueError("this day never comes") from None
    return cron


def day(value: object) -> object:
    """A day as YAML has it, from its ISO text too; ValueError for text that is none."""
    return date.fromisoformat(value) if isinstance(value, str) else value


Text = Annotated[str, Field(min_length=1, pattern=r"^[^\x00]*$")]


class Schedule(BaseModel):
    """The section `schedule` of a spec: ScheduleSettings of the package, which this machine need not have."""

    model_config = ConfigDict(strict=True, extra="forbid", frozen=True)

    cron: Annotated[str, AfterValidator(due)]
    start: Annotated[date, BeforeValidator(day), Field(ge=date(2000, 1, 1), lt=date(2100, 1, 1))]
    timezone: ZoneInfo = ZoneInfo("UTC")
    catchup: bool = False
    retention: int | None = Field(default=None, ge=1, le=1_000_000)
    train: Text | None = None
    connection: Text = "ray_default"
    working_dir: Annotated[str, Field(pattern="^/")] | None = None
    python: Text = "python"

    def snapshot(self, run: Any) -> str:
        """Name of what a run crawls: the day it is due, with time and offset when several are due in a day.

        A retry has the name of its run, and so fetches nothing twice. A run by hand without a date is named by the
        moment it was asked for.
        """
        moment: datetime = (run.data_interval_start or run.run_after).astimezone(self.timezone)
        minutes, hours, *_ = croniter(self.cron).expanded
        if len(minutes) == len(hours) == 1 and "*" not in (*minutes, *hours):
            return moment.date().isoformat()
        # With the offset, as an hour that the clocks run through twice is two.
        return moment.isoformat(timespec="minutes")


class Output(BaseModel):
    """Where the corpus lies."""

    url: Annotated[str, Field(pattern=ABSOLUTE)]


class Spec(BaseModel):
    """What a spec says to Airflow; all else is the build's business."""

    name: Annotated[str, Field(pattern="^[a-z0-9][a-z0-9_-]{0,62}$")]
    output: Output
    schedule: Schedule


def read_spec(file: Path) -> Spec | None:
    """What a spec says to Airflow; None without a schedule; ValueError is one line that names the field."""
    text = file.read_text(encoding="utf-8")
    if "schedule" not in text:
        return None  # not worth parsing: Airflow looks again twice a minute
    try:
        data = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise ValueError(f"not YAML: {' '.join(str(error).split())}") from None
    if not isinstance(data, dict):
        raise ValueError(f"a spec is a mapping of sections, this is {type(data).__name__}")
    if data.get("schedule") is None:
        return None
    try:
        return Spec.model_validate(data)
    except ValidationError as error:
        # An unknown name explains a missing one: it is most often its misspelling.
        faults = sorted(error.errors(), key=lambda each: each["type"] != "extra_forbidden")
        field = ".".join(str(step) for step in faults[0]["loc"])
        raise ValueError(f"{field}: {faults[0]['msg']}, got {reprlib.repr(faults[0]['input'])[:60]}") from None


def spec_files() -> list[Path]:
    """The specs of INTERLOOM_SPECS, or of `specs` beside this file, by name; OSError when the folder is none."""
    named, beside = os.environ.get("INTERLOOM_SPECS"), Path(__file__).absolute().with_name("specs")
    if not named and not beside.exists():
        return []
    folder = Path(os.path.abspath(named)) if named else beside
    return sorted(file for file in folder.iterdir() if file.suffix in (".yaml", ".yml"))


def scheduled_build(spec: Spec, file: Path) -> DAG:
    """The DAG of one spec; ValueError is one line that names the field at fault."""
    schedule, corpus = spec.schedule, spec.output.url.rstrip("/")
    uploaded = Path(os.path.abspath(schedule.working_dir or file.parent))
    if not file.is_relative_to(uploaded):
        raise ValueError(f"schedule.working_dir: {uploaded} does not hold this file, so the cluster would not see it")
    if schedule.train and not corpus.startswith("/"):
        raise ValueError(f"schedule.train: the trainer reads folders, and output.url is {corpus}")
    # As values of macros and not as templates: a name with {{ in it is only a name.
    words = {
        "schedule": schedule,
        "corpus": corpus,
        "spec": file.relative_to(uploaded).as_posix(),
        "working_dir": str(uploaded),
    }
    python, snapshot = "{{ schedule.python }}", "{{ schedule.snapshot(dag_run) }}"
    shared = {"connection": "{{ schedule.connection }}", "working_dir": "{{ working_dir }}"}
    with DAG(
        dag_id=f"corpus_build_{spec.name}",
        description=f"Build the corpus {spec.name} again, as {file.name} schedules it.",
        schedule=CronTriggerTimetable(schedule.cron, timezone=schedule.timezone.key),
        start_date=datetime.combine(schedule.start, clock.min, schedule.timezone),
        catchup=schedule.catchup,
        max_active_runs=1,
        default_args=TRIES,
        user_defined_macros=words,
        tags=["interloom"],
    ) as dag:
        build = RayJob(
            task_id="build",
            # JSON is YAML in which a date is text.
            command=[
                python, "-m", "pipeline.build", "--spec", "{{ spec }}", "--set", f'source.snapshot="{snapshot}"',
            ],
            **shared,
        )  # fmt: skip
        if schedule.train:
            build >> RayJob(
                task_id="train",
                command=[
                    python, "-m", "trainer.run", "--config", "{{ schedule.train }}", "--corpus", "{{ corpus }}",
                    "--out", f"{{{{ corpus }}}}/train/{snapshot}",
                ],
                **shared,
            )  # fmt: skip
        if schedule.retention:
            build >> RayJob(
                task_id="collect",
                command=[
                    python, "-m", "pipeline.gc", "--corpus", "{{ corpus }}", "--keep", str(schedule.retention),
                ],
                **shared,
            )  # fmt: skip
    return dag


class SpecsAtFault(BaseOperator):
    """A task that fails with what is wrong, one line a spec."""

    def __init__(self, *, lines: list[str], **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.lines = lines

    def execute(self, context: Any) -> None:
        """Raises AirflowFailException, always."""
        raise AirflowFailException("\n".join(self.lines))


def faults_to_see(lines: list[str]) -> DAG:
    """A DAG for Airflow's list: an import error of this file would stop every DAG in it, so there is none."""
    with DAG(
        dag_id="corpus_build.faults",  # the dot: no corpus has one in its name
        dag_display_name=f"corpus_build: specs at fault ({len(lines)})",
        description="\n".join(lines),
        schedule=None,
        tags=["interloom", "fault"],
        doc_md="\n".join(f"    {line}" for line in lines),
    ) as dag:
        SpecsAtFault(task_id="faults", lines=lines)
    return dag


def scheduled_builds() -> Iterator[DAG]:
    """A DAG for every spec with a schedule, and one that tells of the specs at fault."""
    faults: list[str] = []
    taken: dict[str, Path] = {}
    try:
        files = spec_files()
    except OSError as error:
        files, faults = [], [f"INTERLOOM_SPECS: {error}"]
    for file in files:
        try:
            spec = read_spec(file)
            if spec is None:
                continue
            # Two DAGs of one corpus would overlap, and collect each other's versions.
            for field, value in (("name", spec.name), ("output.url", spec.output.url.rstrip("/"))):
                if value in taken:
                    raise ValueError(f"{field}: {value} is that of {taken[value].name} already")
            yield scheduled_build(spec, file)
            taken |= {spec.name: file, spec.output.url.rstrip("/"): file}
        # Whatever is wrong with one file, the others keep their DAGs.
        except Exception as error:
            faults.append(f"{file}: {' '.join(str(error).split())[:300]}")
    for line in faults:
        warnings.warn(line, stacklevel=2)  # the DAG processor's log has it too
    if faults:
        yield faults_to_see(faults)


for found in scheduled_builds():
    globals()[found.dag_id] = found  # where Airflow looks for DAGs
