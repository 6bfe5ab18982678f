"""A build at work: every phase on a Ray, a record of how far it came, and a version at the end."""

from __future__ import annotations

import time

from pipeline.builds.order import Order
from pipeline.builds.publish import make_version, publish
from pipeline.builds.reached import failing, out_of_reach
from pipeline.builds.recording import Recording
from pipeline.corpus.records import build_command
from pipeline.corpus.version import Corpus
from pipeline.corpus.words import drop_words, row_words
from pipeline.engine.cluster import dashboard
from pipeline.engine.phase import Phase
from pipeline.engine.plans import configure_ray_data
from pipeline.engine.progress import Progress
from pipeline.engine.recovery import run_phases
from pipeline.engine.resources import Resources
from pipeline.engine.runner import PhaseFailed, Runner, start_tally, told
from pipeline.engine.storage import Storage
from pipeline.phases.generation import Generation
from pipeline.phases.graph import graph, names
from schemas.build_record import STOPPED


def make(order: Order, storage: Storage, found: dict[str, float], recording: Recording, began: float) -> Corpus | None:
    """The published version, None where the order was to stop before."""
    spec = order.spec
    configure_ray_data(spec.resources.block_megabytes)
    tally = start_tally()
    with Progress(lambda phase: told(tally, phase), rows_are=row_words, drops_are=drop_words) as progress:
        progress.say(f"{spec.name}: building into {storage}")
        if order.dashboard:
            progress.say(f"dashboard: {dashboard()}")
        generation = Generation(storage, spec.source.snapshot)
        if order.retry_failed:
            generation.advance()
        runner = Runner(
            storage=storage,
            resources=Resources(
                cpus=found.get("CPU", 1.0),
                gpus=found.get("GPU", 0.0),
                operators=spec.resources.of_operators(),
                small_rows=spec.resources.small_rows,
            ),
            progress=progress,
            tally=tally,
            generation=generation.current(),
            begun=recording.begun,
        )
        again = build_command(storage.url, recording.record, "--retry-failed")

        def after(phase: Phase) -> None:
            if phase.name == "pages" and (cause := out_of_reach(runner.table("pages").read_all(), again)):
                raise PhaseFailed(f"pages: {cause}")
            record, table = runner.records[phase.name], runner.table(phase.name)
            if (cause := failing(record, table.read_all(), spec.crawl.max_failed, again)) is not None:
                raise PhaseFailed(f"{phase.name}: {cause}")

        wanted = names() if order.until is None else names()[: names().index(order.until) + 1]
        run_phases(runner, graph(spec)[: len(wanted)], after)
        if order.until is not None:
            progress.say(f"stopped after {order.until}, as asked")
            recording.ended(STOPPED, f"--until {order.until}")
            return None
        corpus = make_version(spec, runner, seconds=time.monotonic() - began)
        recording.made(runner, corpus.version)
        publish(spec, corpus)
        return corpus
