"""How well a picture's own caption ranks among the sentences of its page where nothing says that it is its caption.

python -m benchmarks.pairing FOLDER                       # pages and pictures under it, encoder lit
python -m benchmarks.pairing FOLDER --shared hash:64      # an encoder that knows nothing: what place alone does
python -m benchmarks.pairing FOLDER --pages 100

Of each picture with a caption, the sentences of its page are ordered by cosine, and by cosine with the prior of
`pair.strategy: page`, as if captions were paragraphs. Said is the percentile of the caption's best sentence (100: first
of all, 50: by chance), and what share of them is first. A caption of a number ("Figure 3.") ranks as one sentence.
"""

from __future__ import annotations

import hashlib
import statistics
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any
from urllib.parse import unquote, urljoin, urlsplit

import numpy as np
import pyarrow as pa
import typer

from stages.encoders.cosine import Single, cosines, from_column
from stages.encoders.embed import EmbedImages, EmbedSentences, EmbedSettings
from stages.extract import ExtractSettings
from stages.extract.document import extract_document
from stages.pairing.page import Standing, evidence
from stages.pairing.pair import PairSettings, prior
from stages.text.sentences import SentenceSettings, sentence_spans, whole_spans

_HOST = "http://site.test/"
_WEIGHTS = (0.0, 0.25, 0.5, 1.0, 2.0, 4.0)
_REFERENCES = (0.0, 3.0)


@dataclass(frozen=True)
class _Page:
    images: list[Standing]
    files: list[Path]
    sentences: list[Standing]


def _read(path: Path, root: Path) -> _Page | None:
    """A page with the pictures whose files lie under `root`; None without one that has a caption."""
    url = urljoin(_HOST, path.relative_to(root).as_posix())
    document = extract_document(path.read_bytes(), url, "text/html", ExtractSettings())
    page = _Page([], [], [])
    settings = SentenceSettings()
    for index, node in enumerate(document["nodes"]):
        if node["kind"] == "image":
            file = root / unquote(urlsplit(node["image_url"]).path).lstrip("/")
            if file.suffix.lower() in (".png", ".jpg", ".jpeg") and file.is_file():
                page.images.append(Standing(index, node))
                page.files.append(file)
            continue
        text = node["text"]
        if node["tag"] in settings.whole_tags:
            spans = whole_spans(text, settings)
        else:
            spans = sentence_spans(text, document["language"], settings)
        page.sentences.extend(Standing(index, node, text[start:end]) for start, end in spans)
    return page if any(evidence(page.images, page.sentences).captions) else None


def _vectors(pages: list[_Page], shared: str) -> tuple[dict[Path, Any], dict[str, Any]]:
    """Unit vectors of all pictures that can be read, and of all sentences."""
    settings = EmbedSettings(image_primary="hash:8", sentence_primary="hash:8", shared=shared, device="cpu")
    files = sorted({file for page in pages for file in page.files})
    texts = sorted({sentence.text for page in pages for sentence in page.sentences})
    bodies = [file.read_bytes() for file in files]
    names = [hashlib.sha256(body).hexdigest() for body in bodies]
    found = []
    for function, rows, keys in (
        (EmbedImages(settings), pa.table({"sha256": names, "body": pa.array(bodies, pa.large_binary())}), files),
        (EmbedSentences(settings), pa.table({"text": pa.array(texts, pa.large_string())}), texts),
    ):
        vectors, usable = from_column(function(rows).column("shared"))
        found.append({key: vectors[row] for row, key in enumerate(keys) if usable[row]})
    return found[0], found[1]


def _ranks(scores: Single, captions: Iterable[tuple[int, tuple[int, ...]]]) -> list[tuple[float, bool]]:
    """Percentile of each caption's best sentence in its row, ties against it, and whether it is the first."""
    found = []
    for row, columns in captions:
        best = scores[row, list(columns)].max()
        others = np.delete(scores[row], list(columns))
        if len(others):
            found.append((100 * float((others < best).mean()), bool((others < best).all())))
    return found


def main(
    folder: Annotated[Path, typer.Argument(help="Folder of HTML pages with their pictures, as a site has them.")],
    shared: Annotated[str, typer.Option(help="Encoder of both, as in embed.shared.")] = "lit",
    pages: Annotated[int, typer.Option(min=1, help="Pages with captions, at most, by the hash of their names.")] = 200,
) -> None:
    """Rank captions among sentences, with and without the prior."""
    paths = sorted(folder.rglob("*.html"), key=lambda path: hashlib.sha256(path.name.encode()).digest())
    read: list[_Page] = []
    for path in paths:
        if (page := _read(path, folder)) is not None:
            read.append(page)
            if len(read) == pages:
                break
    if not read:
        raise SystemExit(f"{folder}: no page with a captioned picture; give the folder of a site with its pictures")
    images, sentences = _vectors(read, shared)
    prepared = []
    for page in read:
        kept = [index for index, file in enumerate(page.files) if file in images]
        shown = [page.images[index] for index in kept]
        said = evidence(shown, page.sentences)
        captions = [(row, columns) for row, columns in enumerate(said.captions) if columns]
        if captions:
            rows = np.stack([images[page.files[index]] for index in kept])
            matrix = cosines(rows, np.stack([sentences[sentence.text] for sentence in page.sentences]))
            prepared.append((matrix, said, captions))
    count = sum(len(captions) for _, _, captions in prepared)
    lengths = [len(matrix[0]) for matrix, _, _ in prepared]
    print(f"{len(prepared)} pages, {count} pictures with a caption, {statistics.median(lengths):.0f} sentences a page")
    for nearness in _WEIGHTS:
        for reference in _REFERENCES:
            settings = PairSettings(strategy="page", nearness=nearness, reference=reference)
            ranks = [
                rank for matrix, said, captions in prepared for rank in _ranks(prior(matrix, said, settings), captions)
            ]
            percentiles = [percentile for percentile, _ in ranks]
            first = statistics.mean(is_first for _, is_first in ranks)
            print(
                f"nearness {nearness:g}, reference {reference:g}: percentile mean {statistics.mean(percentiles):.1f}, "
                f"median {statistics.median(percentiles):.1f}, first {first:.1%}"
            )


if __name__ == "__main__":
    typer.run(main)
