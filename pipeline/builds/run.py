"""The build itself: every phase on a Ray, a record of how far it came, and a version at the end."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from pipeline.builds.dry_run import finished_until, version_at_hand
from pipeline.builds.publish import make_version, publish
from pipeline.builds.reached import failing, out_of_reach
from pipeline.builds.recording import Recording, recorded
from pipeline.corpus.records import build_command
from pipeline.corpus.summary import summarize
from pipeline.corpus.version import Corpus
from pipeline.corpus.words import drop_words, row_words
from pipeline.engine.cluster import check_output, check_shared, connected, dashboard, submitted
from pipeline.engine.phase import Phase
from pipeline.engine.plans import configure_ray_data
from pipeline.engine.progress import Progress
from pipeline.engine.recovery import run_phases
from pipeline.engine.resources import Resources
from pipeline.engine.runner import PhaseFailed, Runner, start_tally, told
from pipeline.engine.storage import Storage
from pipeline.phases.generation import Generation
from pipeline.phases.graph import graph, names
from pipeline.spec.loading import Spec
from schemas.build_record import STOPPED


@dataclass(frozen=True)
class Order:
    """What is to be built, and the words of the command that asked for it."""

    spec: Spec
    label: str  # of the spec, as --spec gave it
    overrides: Sequence[str] = ()  # key=value
    until: str | None = None
    retry_failed: bool = False
    dashboard: bool = False  # of Ray, which shows what the operators are at


def build(order: Order) -> Iterator[str]:
    """Build, or find that nothing is left to do; lines for people that say what came out.

    UserMistake for an output that cannot be used, before a Ray is started for it.
    """
    began = time.monotonic()
    spec = order.spec
    # On a cluster its workers have not been seen to share the output yet.
    if not submitted() and (lines := _nothing_left(order, began)) is not None:
        yield from lines
        return
    storage = check_output(spec.output.url)
    megabytes = spec.resources.object_store_megabytes
    store = megabytes * 1_000_000 if megabytes else None
    with connected(spec.resources.workers, store, dashboard=order.dashboard) as found:
        if submitted():
            check_shared(storage)
            if (lines := _nothing_left(order, began)) is not None:
                yield from lines
                return
        with recorded(storage, spec, order.label, order.overrides, names()) as recording:
            corpus = _build(order, storage, found, recording, began)
    if corpus is not None:
        yield from summarize(corpus, seconds=time.monotonic() - began)


def _nothing_left(order: Order, began: float) -> list[str] | None:
    """Lines that say that all is there that was asked for; None where something is left to do."""
    if order.retry_failed:
        return None
    if order.until is not None:
        said = f"nothing to do: every phase up to {order.until} is finished"
        return [said] if finished_until(order.spec, order.until) else None
    if (there := version_at_hand(order.spec)) is None:
        return None
    return ["nothing to do: every phase is finished", *summarize(there, seconds=time.monotonic() - began)]


def _build(
    order: Order, storage: Storage, found: dict[str, float], recording: Recording, began: float
) -> Corpus | None:
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
