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
"""

from __future__ import annotations

import os
import re
import shlex
import time
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from airflow.sdk import DAG, BaseHook, BaseOperator, Param
from airflow.sdk.exceptions import AirflowException, AirflowFailException, AirflowNotFoundException

if TYPE_CHECKING:
    from collections.abc import Sequence

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


with DAG(
    dag_id="corpus_build",
    description="Build a corpus on a Ray cluster, then train on its shards.",
    schedule=None,
    catchup=False,
    max_active_runs=1,  # two builds of one corpus folder would wait for each other's rows
    default_args={"retries": 1, "retry_delay": timedelta(minutes=1)},
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
