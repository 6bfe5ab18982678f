"""Build a corpus: python -m pipeline.build --spec specs/demo.yaml"""

from __future__ import annotations

import json
from typing import Annotated

import typer

from pipeline.command import run_build, run_command, share_path
from pipeline.engine.ending import catch_sigterm
from pipeline.spec.loading import load

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
    sample: Annotated[
        str | None,
        typer.Option(
            metavar="SHARE", help="Make it of this share of the pages, as in 1%; same as --set source.sample=…"
        ),
    ] = None,
    until: Annotated[str | None, typer.Option(metavar="PHASE", help="Stop after this phase.")] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Say which phases are finished, which would run, and why; do nothing.")
    ] = False,
    retry_failed: Annotated[
        bool,
        typer.Option("--retry-failed", help="Try again what failed in a way that may pass (timeouts, 503, memory)."),
    ] = False,
    dashboard: Annotated[
        bool,
        typer.Option("--dashboard", help="Start Ray's dashboard with the build, and say where: rows by operator."),
    ] = False,
) -> None:
    from pipeline.builds.check import check

    options = {"output.url": out, "source.sample": sample}
    given = [f"{name}={json.dumps(value)}" for name, value in options.items() if value is not None]
    overrides = [*(set_ or []), *given]
    loaded = load(spec, overrides)
    check(loaded, until)
    if dry_run:
        from pipeline.builds.dry_run import describe

        for line in describe(loaded, until):
            print(line)
        return
    from pipeline.builds.order import Order

    run_build(Order(loaded, spec, overrides, until, retry_failed, dashboard))


def main() -> None:
    """Entry point of `python -m pipeline.build`."""
    catch_sigterm()
    share_path()
    run_command(app)


if __name__ == "__main__":
    main()
