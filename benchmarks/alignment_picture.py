"""The expected alignment of two documents of a corpus, drawn with their images and sentences along the axes.

    python -m benchmarks.alignment_picture --corpus OUT --out docs/images/expected_alignment.png

Reads the Arrow shards of the version that OUT/latest names. Takes the most alike pair of documents from
different clusters that have images and sentences, or the two that --documents names.
"""

import argparse
import io
import pathlib
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import torch
from PIL import Image, ImageDraw, ImageFont

from alignment import (
    Slices,
    divisible_cost,
    expected_alignment,
    log_gak,
    log_gak_table,
    triple_kernel_cost,
)

CELL, SIDE, TOP, FOOT = 72, 330, 250, 84
INK, GRID, PAPER, DEEP = (34, 34, 34), (208, 208, 208), (255, 255, 255), (14, 70, 140)


@dataclass(frozen=True)
class Document:
    """What the picture needs of a shard row."""

    document_id: str
    title: str
    cluster: str
    labels: list[Any]  # a thumbnail or the beginning of a sentence, for each slice
    slices: Slices


def shard_files(corpus: pathlib.Path) -> list[pathlib.Path]:
    """The shards of OUT's latest version, or all below a folder that has no `latest`."""
    latest = corpus / "latest"
    folder = corpus / "versions" / latest.read_text().strip() / "shards" if latest.is_file() else corpus
    files = sorted(folder.rglob("*.arrow"))
    if not files:
        raise ValueError(f"no .arrow shards below {folder}: give --corpus the output folder of a build")
    return files


def read_rows(path: pathlib.Path) -> list[dict[str, Any]]:
    """Rows of one Arrow IPC file."""
    with pa.memory_map(str(path)) as source:
        return pa.ipc.open_file(source).read_all().to_pylist()


def document_of(row: dict[str, Any], fewest: int, most: int) -> Document | None:
    """None unless the document has between `fewest` and `most` slices, all with vectors, of both kinds."""
    found = row["slices"]
    complete = all(one["primary"] is not None and one["shared"] is not None for one in found)
    kinds = [one["kind"] for one in found]
    if not complete or not fewest <= len(found) <= most or min(kinds.count("image"), kinds.count("sentence")) < 2:
        return None
    labels: list[Any] = []
    for one in found:
        node = row["nodes"][one["node"]]
        if one["kind"] == "image":
            labels.append(Image.open(io.BytesIO(row["images"][node["image"]]["bytes"])).convert("RGB"))
        else:
            labels.append(" ".join(node["text"][one["start"] : one["end"]].split()))
    width = max(len(one["primary"]) for one in found)
    primary = [[*map(float, one["primary"]), *[0.0] * (width - len(one["primary"]))] for one in found]
    shared = [list(map(float, one["shared"])) for one in found]
    slices = Slices(
        torch.nn.functional.normalize(torch.tensor(primary), dim=-1),
        torch.nn.functional.normalize(torch.tensor(shared), dim=-1),
        torch.tensor([kind == "image" for kind in kinds]),
    )
    return Document(row["document_id"], row["title"] or row["url"], row["cluster_id"], labels, slices)


def normalised_kernel(x: Document, y: Document, delta: float) -> float:
    """The label of two whole documents, bandwidth delta * sqrt of their mean length."""
    sigma = bandwidth(x, y, delta)
    log = [float(log_gak(triple_kernel_cost(a.slices, b.slices)[None], sigma)) for a, b in ((x, y), (x, x), (y, y))]
    return float(torch.tensor(log[0] - (log[1] + log[2]) / 2).exp())


def bandwidth(x: Document, y: Document, delta: float) -> float:
    """delta * sqrt((N + M) / 2)."""
    return delta * ((len(x.labels) + len(y.labels)) / 2) ** 0.5


def most_alike(documents: list[Document], delta: float) -> tuple[Document, Document]:
    """The pair of different clusters with the largest normalised kernel."""
    pairs = [
        (normalised_kernel(x, y, delta), number, other)
        for number, x in enumerate(documents)
        for other, y in enumerate(documents[:number])
        if x.cluster != y.cluster
    ]
    if not pairs:
        raise ValueError("fewer than two fitting documents of different clusters: widen --slices, or name two")
    _, number, other = max(pairs)
    return documents[number], documents[other]


def wrapped(text: str, font: Any, width: int, lines: int) -> str:
    """The beginning of a text in at most `lines` lines of `width` pixels."""
    rows, words = [""], text.split()
    while words:
        longer = f"{rows[-1]} {words[0]}".strip()
        if font.getlength(longer) <= width or not rows[-1]:
            rows[-1] = longer
            words.pop(0)
        elif len(rows) < lines:
            rows.append("")
        else:
            rows[-1] = rows[-1] + " …"
            break
    return "\n".join(rows)


def font_of(size: int) -> Any:
    """A font with signs beyond Latin where the system has one."""
    try:
        return ImageFont.truetype("DejaVuSans.ttf", size)
    except OSError:
        return ImageFont.load_default(size)


def slice_label(label: Any, font: Any, width: int) -> Image.Image:
    """A slice as a strip of `width` x CELL pixels: a thumbnail or the first words, at the right end."""
    strip = Image.new("RGB", (width, CELL), PAPER)
    if isinstance(label, Image.Image):
        thumbnail = label.copy()
        thumbnail.thumbnail((width, CELL - 6))
        strip.paste(thumbnail, (width - thumbnail.width - 6, (CELL - thumbnail.height) // 2))
    else:
        draw = ImageDraw.Draw(strip)
        text = wrapped(label, font, width - 16, 3)
        draw.multiline_text((width - 8, CELL // 2), text, INK, font, anchor="rm", align="right", spacing=3)
    return strip


def draw_alignment(x: Document, y: Document, delta: float) -> Image.Image:
    """Rows: slices of x; columns: slices of y; darkness: probability that the alignment visits the cell."""
    squared = triple_kernel_cost(x.slices, y.slices)[None]
    sigma = bandwidth(x, y, delta)
    expected = expected_alignment(divisible_cost(squared / (2 * sigma**2)))[0]
    label = normalised_kernel(x, y, delta)
    paths = float(log_gak_table(squared, sigma)[0, -1, -1])
    small, large = font_of(14), font_of(18)
    rows, columns = expected.shape
    picture = Image.new("RGB", (SIDE + columns * CELL + 24, TOP + rows * CELL + FOOT), PAPER)
    draw = ImageDraw.Draw(picture)
    for i in range(rows):
        picture.paste(slice_label(x.labels[i], small, SIDE - 8), (0, TOP + i * CELL))
        for j in range(columns):
            share = float(expected[i, j])
            colour = tuple(round(p + (d - p) * share**0.7) for p, d in zip(PAPER, DEEP, strict=True))
            box = (SIDE + j * CELL, TOP + i * CELL, SIDE + (j + 1) * CELL, TOP + (i + 1) * CELL)
            draw.rectangle(box, fill=colour, outline=GRID)
            if share >= 0.05:
                middle = ((box[0] + box[2]) / 2, (box[1] + box[3]) / 2)
                draw.text(middle, f"{share:.2f}", PAPER if share > 0.45 else INK, small, anchor="mm")
    for j in range(columns):
        above = y.labels[j]
        if isinstance(above, Image.Image):
            thumbnail = above.copy()
            thumbnail.thumbnail((CELL - 6, TOP - 40))
            picture.paste(thumbnail, (SIDE + j * CELL + (CELL - thumbnail.width) // 2, TOP - thumbnail.height - 8))
        else:
            strip = slice_label(above, small, TOP - 48).transpose(Image.Transpose.ROTATE_270)
            picture.paste(strip, (SIDE + j * CELL, 40))
    foot = TOP + rows * CELL + 10
    draw.text((8, 8), "Expected alignment of two documents", INK, large)
    draw.text((8, foot), wrapped(f"rows: {x.title}", small, picture.width - 16, 1), INK, small)
    draw.text((8, foot + 22), wrapped(f"columns: {y.title}", small, picture.width - 16, 1), INK, small)
    numbers = f"sigma {sigma:.2f}, log K {paths:.2f}, normalised kernel {label:.2g}"
    draw.text((8, foot + 44), numbers, INK, small)
    return picture


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--corpus", type=pathlib.Path, required=True, help="output folder of a build")
    parser.add_argument("--out", type=pathlib.Path, required=True, help="PNG to write")
    parser.add_argument("--documents", nargs=2, metavar="ID", help="two document ids instead of the best pair")
    parser.add_argument("--slices", nargs=2, type=int, default=(12, 20), metavar=("FEWEST", "MOST"))
    parser.add_argument("--delta", type=float, default=0.3, help="bandwidth; smaller draws sharper paths")
    parser.add_argument("--candidates", type=int, default=60, help="documents to choose from")
    options = parser.parse_args()
    try:
        found: list[Document] = []
        for path in shard_files(options.corpus):
            for row in read_rows(path):
                named = options.documents is not None and row["document_id"] in options.documents
                if options.documents is not None and not named:
                    continue
                document = document_of(row, *((1, 10**6) if named else options.slices))
                if document is not None:
                    found.append(document)
            if options.documents is None and len(found) >= options.candidates:
                break
        if options.documents is None:
            pair = most_alike(found[: options.candidates], options.delta)
        else:
            by_id = {document.document_id: document for document in found}
            missing = [one for one in options.documents if one not in by_id]
            if missing:
                raise ValueError(f"no document {missing[0]} with images, sentences and all vectors")
            pair = (by_id[options.documents[0]], by_id[options.documents[1]])
    except ValueError as error:
        parser.error(str(error))
    options.out.parent.mkdir(parents=True, exist_ok=True)
    draw_alignment(*pair, options.delta).save(options.out)
    print(f"{options.out}: {pair[0].document_id} and {pair[1].document_id}")


if __name__ == "__main__":
    main()
