"""Write the report of a corpus again: python -m pipeline.report --corpus out/demo"""

from __future__ import annotations

from typing import Annotated

import typer

from pipeline.command import run_command
from pipeline.corpus.version import Corpus
from pipeline.report import write_report

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)


@app.command()
def report(
    corpus: Annotated[str, typer.Option(help="Folder or URL of a built corpus.")],
    version: Annotated[str | None, typer.Option(help="A version of it; the latest when not given.")] = None,
) -> None:
    """Draw one HTML page about a corpus: what was dropped and why, scores, a gallery, mined negatives, times."""
    opened = Corpus(corpus, version)
    name = write_report(opened)
    print(opened.storage.path(name))


if __name__ == "__main__":
    run_command(app)
