"""Build a corpus: python -m pipeline.build --spec specs/demo.yaml"""

from __future__ import annotations

import json
import os
import time
from pathlib import Path
from typing import Annotated, Any

import typer

from pipeline.command import fail, run_command
from pipeline.engine.ending import catch_sigterm
from pipeline.engine.mistake import UserMistake
from pipeline.spec.loading import Spec, load

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)

_HELP = """Build a corpus from a spec: crawl or read pages, extract interleaved documents, drop duplicates and what
the filters refuse, fetch pictures, embed, pair, mine hard negatives, and write Arrow shards.

What is finished is not done again: run the same command after a crash, a kill or a changed spec, and only what is
missing or stale is made. The shards do not depend on the number of workers, on retries or on the time of day.

It starts a local Ray by itself; under `ray job submit` it joins the cluster.

Exit code: 0 done, 2 a mistake in the spec or the command (one line says which), 1 anything else.
"""


@app.command(help=_HELP)
def build(
    spec: Annotated[str, typer.Option(help="YAML file, or the name of a packaged spec (demo, mmc4, obelics, sugar).")],
    set_: Annotated[
        list[str] | None,
        typer.Option(
            "--set", metavar="KEY=VALUE", help="Override a field, as in filter.document.num_words.min=50. Repeatable."
        ),
    ] = None,
    out: Annotated[str | None, typer.Option(help="Where the corpus goes; same as --set output.url=…")] = None,
    until: Annotated[str | None, typer.Option(metavar="PHASE", help="Stop after this phase.")] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Say which phases are finished, which would run, and why; do nothing.")
    ] = False,
    retry_failed: Annotated[
        bool,
        typer.Option("--retry-failed", help="Try again what failed in a way that may pass (timeouts, 503, memory)."),
    ] = False,
) -> None:
    overrides = [*(set_ or []), *([f"output.url={json.dumps(out)}"] if out is not None else [])]
    loaded = load(spec, overrides)
    _check(loaded, until)
    if dry_run:
        from pipeline.builds.dry_run import describe

        for line in describe(loaded, until):
            print(line)
        return
    _build(loaded, until, retry_failed)


def _check(spec: Spec, until: str | None) -> None:
    """Mistakes that can be found without starting anything."""
    from pipeline.phases.graph import names
    from pipeline.phases.sources import check_source
    from stages.encoders.embed import check_available
    from stages.encoders.protocol import WeightsMissing

    if until is not None and until not in names():
        raise UserMistake(f"--until {until}: no such phase; there are {', '.join(names())}")
    check_source(spec)
    if until is None or names().index(until) >= names().index("embeddings"):
        try:
            # Now, and not when all is crawled and they are asked for the first time.
            check_available(spec.embed)
        except WeightsMissing as error:
            raise UserMistake(f"embed: {error}") from None


def _build(spec: Spec, until: str | None, retry_failed: bool) -> None:
    from pipeline.builds.dry_run import finished
    from pipeline.builds.publish import publish
    from pipeline.builds.reached import out_of_reach
    from pipeline.corpus.summary import summarize
    from pipeline.corpus.words import drop_words, row_words
    from pipeline.engine.cluster import check_output, connected
    from pipeline.engine.phase import Phase
    from pipeline.engine.progress import Progress
    from pipeline.engine.recovery import line_for_people, run_phases
    from pipeline.engine.runner import PhaseFailed, Resources, Runner, configure_ray_data, start_tally, told
    from pipeline.phases.generation import Generation
    from pipeline.phases.graph import graph, names

    began = time.monotonic()
    if not retry_failed and until is None and (done := finished(spec)) is not None:
        print("nothing to do: every phase is finished")
        for line in summarize(done, seconds=time.monotonic() - began):
            print(line)
        return
    megabytes = spec.resources.object_store_megabytes
    try:
        with connected(spec.resources.workers, megabytes * 1_000_000 if megabytes else None) as found:
            storage = check_output(spec.output.url)
            configure_ray_data(spec.resources.block_megabytes)
            tally = start_tally()
            with Progress(lambda phase: told(tally, phase), rows_are=row_words, drops_are=drop_words) as progress:
                progress.say(f"{spec.name}: building into {storage}")
                generation = Generation(storage, spec.source.snapshot)
                if retry_failed:
                    generation.advance()
                runner = Runner(
                    storage=storage,
                    num_partitions=spec.output.partitions,
                    resources=Resources(
                        cpus=found.get("CPU", 1.0),
                        gpus=found.get("GPU", 0.0),
                        encoder_workers=spec.resources.encoder_workers,
                    ),
                    progress=progress,
                    tally=tally,
                    generation=generation.current(),
                )

                def after(phase: Phase) -> None:
                    if phase.name == "pages" and (cause := out_of_reach(runner.table("pages").read_all())):
                        raise PhaseFailed(f"pages: {cause}")

                phases = graph(spec, runner.generation)
                wanted = names() if until is None else names()[: names().index(until) + 1]
                run_phases(runner, phases[: len(wanted)], after)
                if until is not None:
                    progress.say(f"stopped after {until}, as asked")
                    return
                corpus = publish(spec, runner, seconds=time.monotonic() - began)
    except Exception as error:
        if said := line_for_people(error):
            fail(said, 1)
        raise
    for line in summarize(corpus, seconds=time.monotonic() - began):
        print(line)


def main() -> None:
    """Entry point of `python -m pipeline.build`."""
    catch_sigterm()
    # Workers import the same packages as the driver, from wherever it found them.
    root = str(Path(__file__).resolve().parent.parent)
    paths: list[Any] = os.environ.get("PYTHONPATH", "").split(os.pathsep)
    if root not in paths:
        os.environ["PYTHONPATH"] = os.pathsep.join([root, *filter(None, paths)])
    run_command(app)


if __name__ == "__main__":
    main()
