"""Generate text for a picture with a trained model.

    python -m trainer.generate --model out/demo/train/model --image picture.png

Exit codes: 0 done, 2 the user's mistake (one line says which), 1 anything else.
"""

from __future__ import annotations

if __name__ == "__main__":
    # First, for all that is imported below takes a second.
    from trainer.parallel.signals import listen

    listen()

import json
import os
from pathlib import Path
from typing import Annotated, Any

import typer

# None of these loads torch: --help answers at once.
from trainer.command import exit_codes, one_line, run_command
from trainer.errors import CorruptRecordError, UserError

# Bars of the libraries inside would stand between the lines.
os.environ.setdefault("TQDM_DISABLE", "1")

app = typer.Typer(add_completion=False, rich_markup_mode=None, pretty_exceptions_enable=False)


@app.command()
def main(
    model: Annotated[str, typer.Option(help="Model folder of a run: OUT/model.")],
    image: Annotated[
        str,
        typer.Option(help="Picture file, of a format that a build decodes: JPEG, PNG, WebP, AVIF, TIFF and others."),
    ],
    prompt: Annotated[str, typer.Option(help="Text after the picture, which the model continues.")] = "",
    max_new_tokens: Annotated[int, typer.Option(help="Most tokens to write.", min=1)] = 40,
) -> None:
    """Print what a trained model writes after a picture (and a prompt): greedily, so the same every time."""
    with exit_codes():
        text = describe(Path(model), Path(image), prompt, max_new_tokens)
        typer.echo("\n".join(one_line(line) for line in text.split("\n")))


def describe(folder: Path, image: Path, prompt: str, max_new_tokens: int) -> str:
    """Text for a picture file by the model in a folder; UserError when either cannot be read."""
    image_size = _image_size(folder)
    try:
        data = image.read_bytes()
    except (OSError, ValueError) as error:
        raise UserError(f"--image: {error}") from None
    import torch

    from trainer.data.layout import PlainText
    from trainer.data.pixels import decode
    from trainer.model.writing import write

    try:
        pixels = decode(data, image_size, str(image))
    except CorruptRecordError as error:
        raise UserError(f"--image: {error}") from None
    model, tokenizer = _load(folder)
    config = model.config
    model.to(torch.device("cuda" if torch.cuda.is_available() else "cpu"))
    start = [config.document_token_id, *[config.image_token_id] * config.image_tokens]
    return write(model, tokenizer, start + PlainText(tokenizer).encode(prompt), pixels[None], max_new_tokens)


def _image_size(folder: Path) -> int:
    """Pixels a side that the model in a folder takes; UserError when the folder does not say that it is one."""
    if not folder.is_dir():
        raise UserError(f"--model {folder}: no such folder; a finished run leaves its model in OUT/model")
    try:
        config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
        kind, size = config.get("model_type"), config.get("image_size")
    except (OSError, ValueError, AttributeError) as error:
        raise UserError(f"--model {folder}: not a model folder: {error}") from None
    if kind != "interloom" or not isinstance(size, int):
        raise UserError(f"--model {folder}: a model of type {kind}, not one that the trainer left")
    return size


def _load(folder: Path) -> tuple[Any, Any]:
    """(model in evaluation mode on the CPU, tokenizer)."""
    from safetensors import SafetensorError
    from transformers import AutoTokenizer

    from trainer.model.interleaved import InterleavedForCausalLM

    try:
        tokenizer: Any = AutoTokenizer.from_pretrained(folder)
        model: Any = InterleavedForCausalLM.from_pretrained(folder)
    except (OSError, ValueError, RuntimeError, SafetensorError) as error:
        raise UserError(f"--model {folder}: cannot be loaded: {error}") from None
    return model.eval(), tokenizer


if __name__ == "__main__":
    run_command(app)
