"""Write what a corpus was made of as WARC files: python -m pipeline.warc --corpus OUT --to DIR"""

from __future__ import annotations

from typing import Annotated

import typer
from pydantic import ValidationError

from pipeline.command import run_command
from pipeline.engine.ending import catch_sigterm
from pipeline.engine.mistake import UserMistake

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)


@app.command()
def warc(
    corpus: Annotated[str, typer.Option(help="Folder or URL of a finished corpus.")],
    to: Annotated[
        str, typer.Option(help="Folder or URL for the WARC files: a new one, or that of a run to go on with.")
    ],
    version: Annotated[str | None, typer.Option(help="A version of the corpus. Without it: `latest`.")] = None,
    target_bytes: Annotated[
        int,
        typer.Option(help="Bytes after which a file ends, at its next capture; held in memory.", min=1, max=1 << 30),
    ] = 256_000_000,
) -> None:
    """Write what a corpus was made of as WARC 1.1 files.

    Every page and picture that was asked for over the network has a metadata record with its consent record; what was
    had of it follows as a response, or as a revisit of the response before where both are the same. What was forgotten
    since is left out. A run that was stopped goes on where it was; the same version gives the same bytes.
    """
    from pipeline.builds.archive import archive
    from pipeline.corpus.version import Corpus
    from pipeline.spec.loading import Spec

    opened = Corpus(corpus, version)
    resolved = opened.manifest.spec
    try:
        spec = Spec.model_validate({**resolved, "output": {**resolved["output"], "url": corpus}})
    except (ValidationError, KeyError, TypeError):
        raise UserMistake(
            f"--corpus {corpus}: the spec of {opened.called} is not what this release takes: build again"
        ) from None
    done = archive(opened, spec, to, target_bytes)
    print(
        f"{done.captures:,} captures of {opened.called} in {done.files:,} WARC files, {done.bytes:,} bytes; "
        f"{done.kept:,} files were there"
    )


def main() -> None:
    """Entry point of `python -m pipeline.warc`."""
    catch_sigterm()
    run_command(app)


if __name__ == "__main__":
    main()
