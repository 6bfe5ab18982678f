"""Remove what no kept version needs: python -m pipeline.gc --corpus OUT [--keep N] [--dry-run]

Kept are the newest N versions and the one that `latest` names, with all their tables, and of the row stores the
folders of functions that any kept table was made with, plus everything that was fetched: fetches are what a corpus
cannot make again by itself. Collect when no build is running: what an unfinished one has made is needed by no version
yet, and goes; it is only made again.
"""

from __future__ import annotations

from typing import Annotated

import typer

from pipeline.command import run_command
from pipeline.corpus.version import Corpus, latest, open_storage, version_manifest
from pipeline.engine.damage import Damaged
from pipeline.engine.keys import digest_json
from pipeline.engine.mistake import UserMistake
from pipeline.engine.storage import HALF_WRITTEN, Storage

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)
# Row stores that hold what came from outside.
_FETCHED = ("fetch_page", "fetch_image", "read_source", "generations")


def doomed(storage: Storage, keep: int) -> list[str]:
    """Objects that nothing kept refers to, sorted; Damaged when what is kept does not say what it needs."""
    if not storage.names("versions"):
        raise UserMistake(f"--corpus {storage}: no version there")
    manifests = []
    for name in storage.names("versions"):
        manifest = version_manifest(storage, name)
        if manifest is None:
            continue  # a build that is under way, or was killed: its shards are found by its phase's receipts
        manifests.append(manifest)
    newest = sorted(manifests, key=lambda each: (str(each.run.get("built", "")), each.version))[-keep:]
    kept = {each.version for each in newest}
    if (published := latest(storage)) is not None:
        kept.add(published)
    tables: set[str] = set()
    stores: set[str] = set()
    for version in sorted(kept):
        corpus = Corpus(storage.url, None if version == published else version)
        for phase, key in corpus.manifest.phases.items():
            tables.add(f"tables/{phase}/{key}/")
            functions = corpus.phase_manifest(phase).ingredients.get("functions")
            if not isinstance(functions, dict):
                raise Damaged(f"tables/{phase}/{key}/manifest.json names no functions: delete it and build again")
            for name, ingredients in functions.items():
                stores.add(f"rows/{name}/{digest_json(ingredients)}/")
    found = []
    for name in storage.walk("tables"):
        if "/".join(name.split("/")[:3]) + "/" not in tables or name.endswith(HALF_WRITTEN):
            found.append(name)
    for name in storage.walk("rows"):
        parts = name.split("/")
        wanted = parts[1] in _FETCHED or "/".join(parts[:3]) + "/" in stores
        if not wanted or name.endswith(HALF_WRITTEN):
            found.append(name)
    for name in storage.walk("versions"):
        if name.split("/")[1] not in kept or name.endswith(HALF_WRITTEN):
            found.append(name)
    return sorted(found)


@app.command(help=(__doc__ or "").split("\n\n", 1)[1])
def collect(
    corpus: Annotated[str, typer.Option(help="The corpus folder or URL.")],
    keep: Annotated[int, typer.Option(min=1, help="Newest versions to keep.")] = 1,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what would go; remove nothing.")] = False,
) -> None:
    storage = open_storage(corpus)
    names = doomed(storage, keep)
    total = sum(storage.size(name) for name in names)
    stays = {name.split("/")[1] for name in set(storage.walk("versions")).difference(names)}
    versions = sorted({name.split("/")[1] for name in names if name.startswith("versions/")} - stays)
    named = f"; versions {', '.join(versions)}" if versions else ""
    if not dry_run:
        # A table's manifest goes first: what is left of a killed collection is then no table.
        for name in sorted(names, key=lambda each: (not each.endswith("manifest.json"), each)):
            storage.delete(name)
        storage.prune("versions")
    print(f"{len(names):,} objects, {total / 1e6:.1f} MB {'would be removed' if dry_run else 'removed'}{named}")


if __name__ == "__main__":
    run_command(app)
