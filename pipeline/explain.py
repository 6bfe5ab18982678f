"""Say what happened to a page or an image: python -m pipeline.explain --corpus out/demo --url http://…"""

from __future__ import annotations

from typing import Annotated

import typer

from pipeline.command import one_line, run_command
from pipeline.corpus.explanation import explain
from pipeline.corpus.unfinished import open_corpus

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)


@app.command()
def main(
    corpus: Annotated[str, typer.Option(help="Folder or URL of a corpus, built or begun.")],
    url: Annotated[str, typer.Option(help="A page or an image.")],
    version: Annotated[str | None, typer.Option(help="A version of the corpus.")] = None,
    build: Annotated[
        str | None,
        typer.Option(help="A build, by its record in OUT/builds. Without either: the newest build, else `latest`."),
    ] = None,
) -> None:
    """Say what happened to a page, its paragraphs and its images, or to one image, and why.

    The first line says which version or build is read, and how far the build came if it is not finished.
    """
    opened, which = open_corpus(corpus, version, build)
    # All of it first: a URL that is not known is a mistake, and then nothing is printed.
    for line in [which, *explain(opened, url)]:
        print(one_line(line))


if __name__ == "__main__":
    run_command(app)
