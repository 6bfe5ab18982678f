"""Flip bits of the one shard of each folder named, and read what is left: python -m tests.trainer.data.flips FOLDER...

Prints how many files were refused in one line, and how many were read to the end.
"""

from __future__ import annotations

import random
import sys
import tempfile
from pathlib import Path

from trainer.data.corpus import check_shards, open_corpus
from trainer.errors import UserError

FLIPS = 120  # a folder


class Alone:
    """The only rank."""

    rank, world = 0, 1

    def most(self, count: int) -> int:
        return count

    def agree(self, error: Exception | None = None) -> None:
        if error:
            raise error


def read(folder: Path) -> bool:
    """Whether the folder's shard passes; then all of it is read."""
    try:
        with tempfile.TemporaryDirectory() as cache:
            corpus = open_corpus(str(folder))
            check_shards(corpus, Path(cache), Alone())
    except UserError as error:
        assert "\n" not in str(error), error
        return False
    for index in range(len(corpus)):
        document = corpus.document(index)
        assert len(document.vectors("primary")) == len(document.vectors("shared")) == len(document.slices)
        assert all(edge.anchor < len(document.slices) for edge in document.negatives)
        for place, piece in enumerate(document.slices):
            if piece.is_image:
                assert document.image_bytes(document.image_of(place)) is not None
            else:
                document.sentence(place)
    assert len(corpus.column("split")) == len(corpus)
    return True


def main() -> None:
    """Flips of all folders."""
    drawn = random.Random(20)
    passed = {True: 0, False: 0}
    for folder in map(Path, sys.argv[1:]):
        (path,) = folder.glob("*.arrow")
        whole = path.read_bytes()
        for number in range(FLIPS):
            content = bytearray(whole)
            # One bit anywhere; or several near an end, where the schema and the index of batches lie.
            if number % 2:
                content[drawn.randrange(len(whole))] ^= 1 << drawn.randrange(8)
            else:
                for _ in range(3):
                    content[drawn.choice((1, -1)) * drawn.randrange(1, 6000)] ^= 1 << drawn.randrange(8)
            path.write_bytes(content)
            passed[read(folder)] += 1
        path.write_bytes(whole)
    print(passed[False], passed[True])


if __name__ == "__main__":
    main()
