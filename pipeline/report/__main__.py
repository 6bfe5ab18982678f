"""Write the report of a corpus again: python -m pipeline.report --corpus out/demo"""

from __future__ import annotations

from typing import Annotated

import typer

from pipeline.command import run_command
from pipeline.corpus.unfinished import open_corpus
from pipeline.report import write_report

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)


@app.command()
def report(
    corpus: Annotated[str, typer.Option(help="Folder or URL of a corpus, built or begun.")],
    version: Annotated[str | None, typer.Option(help="A version of it.")] = None,
    build: Annotated[
        str | None,
        typer.Option(help="A build, by its record in OUT/builds. Without either: the newest build, else `latest`."),
    ] = None,
) -> None:
    """Draw one HTML page about a corpus: what was dropped and why, scores, a gallery, mined negatives, times.

    Of a build that is not finished it shows what there is, and says why it is not. Prints where the page lies.
    """
    opened, _ = open_corpus(corpus, version, build)
    name = write_report(opened)
    print(opened.storage.path(name))


if __name__ == "__main__":
    run_command(app)
