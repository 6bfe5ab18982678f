"""Ask the sites of a corpus again what they allow, and take down what should go.

python -m pipeline.consent --corpus OUT --recheck [--apply]
python -m pipeline.consent --corpus OUT --forget https://example.org/a.html [--apply]
"""

from __future__ import annotations

from typing import Annotated, Any

import typer
from pydantic import ValidationError

from pipeline.command import one_line, run_build, run_command, share_path
from pipeline.engine.ending import catch_sigterm
from pipeline.engine.mistake import UserMistake

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)

_HELP = """Ask the sites of a corpus again what they allow, and take down what should go.

--recheck asks for every page and image of the newest version again, as politely as the crawl did, and lists those
that robots.txt, ai.txt, tdmrep.json, headers or meta tags refuse by now. --forget takes down what somebody asks for: it
goes from the row stores at once, and from every version that is made from here on. --apply makes that version.

Exit code: 0 nothing should go, or it has gone; 3 there is something that should go; 2 a mistake in the command; 1
anything else.
"""
SHOULD_GO = 3


@app.command(help=_HELP)
def consent(
    corpus: Annotated[str, typer.Option(help="Folder or URL of a corpus.")],
    recheck: Annotated[bool, typer.Option("--recheck", help="Ask the sites of its newest version again.")] = False,
    gone: Annotated[
        bool, typer.Option("--gone", help="With --recheck: what is not there any more (404, 410) should go too.")
    ] = False,
    forget: Annotated[
        list[str] | None,
        typer.Option(
            metavar="URL|HOST|SHA256",
            help="A page or image, a host with all below it, or the sha256 of a page's or picture's bytes. Repeatable.",
        ),
    ] = None,
    apply: Annotated[
        bool, typer.Option("--apply", help="Take down what was found, and build a version without it.")
    ] = False,
) -> None:
    from pipeline.corpus.records import build_ids
    from pipeline.corpus.version import Corpus, open_storage
    from pipeline.phases.takedowns import write_entries

    if not recheck and not forget:
        raise UserMistake("--recheck, --forget or both: nothing is asked for")
    if gone and not recheck:
        raise UserMistake("--gone goes with --recheck")
    storage = open_storage(corpus)
    opened = Corpus(corpus) if recheck or apply else None
    spec = _spec_of(opened, corpus) if opened is not None else None
    if forget:
        if not storage.names("versions") and not build_ids(storage):
            raise UserMistake(f"--corpus {corpus}: no version there, nor a record of a build")
        _forget(storage, forget)
    found: list[Any] = []
    if recheck:
        from pipeline.builds.recheck import entries
        from pipeline.builds.recheck import recheck as ask_again

        assert opened is not None and spec is not None
        result = ask_again(opened, spec, gone=gone)
        found = result.findings
        for finding in found:
            print(one_line(finding.line))
        for line in result.unanswered:
            print(one_line(f"not known now: {line}"))
        print(
            f"{result.pages:,} pages and {result.images:,} images asked for: {len(found):,} should go, of "
            f"{len(result.unanswered):,} nothing is known now"
        )
        if apply and found:
            write_entries(storage, entries(found, spec.source.snapshot))
    if apply:
        assert opened is not None and spec is not None
        _build(opened, spec)
    elif found:
        raise typer.Exit(SHOULD_GO)


def _spec_of(opened: Any, url: str) -> Any:
    """The spec that a version was built from, for the place where it is now."""
    from pipeline.spec.loading import Spec

    resolved = opened.manifest.spec
    try:
        return Spec.model_validate({**resolved, "output": {**resolved["output"], "url": url}})
    except (ValidationError, KeyError, TypeError):
        raise UserMistake(
            f"--corpus {url}: the spec of {opened.called} is not what this release takes: build again"
        ) from None


def _forget(storage: Any, wanted: list[str]) -> None:
    from pipeline.builds.forget import entry_of
    from pipeline.builds.forget import forget as take_out
    from pipeline.engine.moment import now

    entries = [entry_of(each, f"asked for on {now()[:10]}") for each in wanted]
    went = take_out(storage, entries)
    print(
        f"{went.new:,} remembered to be forgotten; {went.rows:,} rows taken out of the stores, "
        f"{went.overwritten:,} bytes overwritten"
    )
    if versions := storage.names("versions"):
        print(
            f"versions made before keep what they hold: {', '.join(versions)}; build again (--apply), and let "
            "python -m pipeline.gc remove them"
        )


def _build(opened: Any, spec: Any) -> None:
    from pipeline.builds.check import check
    from pipeline.builds.order import Order

    record = opened.record
    check(spec, None)
    label, overrides = (record.label, record.overrides) if record is not None else (spec.name, ())
    run_build(Order(spec, label, overrides))


def main() -> None:
    """Entry point of `python -m pipeline.consent`."""
    catch_sigterm()
    share_path()
    run_command(app)


if __name__ == "__main__":
    main()
