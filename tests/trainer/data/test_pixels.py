"""A model sees a picture as the build decodes it: upright, 8 bits of 16, inks as light, transparency on white."""

from __future__ import annotations

import io
import warnings
import zlib
from typing import Any

import numpy as np
import pytest
import skimage
import torch
from PIL import Image

import schemas.keys
from tests.trainer.fabricated import picture
from trainer.data.features import feature_folder
from trainer.data.pixels import decode
from trainer.errors import CorruptRecordError

SIDE = 48


def photo() -> Image.Image:
    """A real picture that no turn or mirror leaves as it is, without fine detail that JPEG would change."""
    return Image.fromarray(skimage.data.chelsea()[:256, 60:316]).resize((SIDE, SIDE))


def written(image: Image.Image, kind: str, **settings: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **settings)
    return buffer.getvalue()


def expected(image: Image.Image) -> torch.Tensor:
    return torch.from_numpy(np.asarray(image.convert("RGB")).copy()).permute(2, 0, 1)


def error(found: torch.Tensor, right: torch.Tensor) -> float:
    return float((found.float() - right.float()).abs().mean())


def test_a_ramp_of_16_bits_stays_a_ramp() -> None:
    ramp = np.tile(np.linspace(0, 65535, SIDE).round().astype(np.uint16), (SIDE, 1))
    found = decode(written(Image.fromarray(ramp), "PNG"), SIDE, "here")
    assert torch.equal(found[0], found[2])
    assert error(found[0], torch.from_numpy((ramp / 257).round())) < 1


@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_turned_photo_is_upright(orientation: int) -> None:
    back = {
        2: Image.Transpose.FLIP_LEFT_RIGHT,
        3: Image.Transpose.ROTATE_180,
        4: Image.Transpose.FLIP_TOP_BOTTOM,
        5: Image.Transpose.TRANSPOSE,
        6: Image.Transpose.ROTATE_90,
        7: Image.Transpose.TRANSVERSE,
        8: Image.Transpose.ROTATE_270,
    }
    stored = photo().transpose(back[orientation]) if orientation in back else photo()
    exif = Image.Exif()
    exif[0x0112] = orientation
    found = decode(written(stored, "JPEG", quality=98, subsampling=0, exif=exif), SIDE, "here")
    assert error(found, expected(photo())) < 3


def test_inks_are_shown_as_light() -> None:
    found = decode(written(photo().convert("CMYK"), "JPEG", quality=98), SIDE, "here")
    assert error(found, expected(photo())) < 6


@pytest.mark.parametrize("mode", ["RGBA", "LA", "P"])
def test_what_is_transparent_is_white(mode: str) -> None:
    image = Image.new("RGBA", (SIDE, SIDE), (0, 0, 0, 0)).convert(mode)
    settings = {"transparency": 0} if mode == "P" else {}
    assert decode(written(image, "PNG", **settings), SIDE, "here").min() == 255


def _bomb() -> bytes:
    """A PNG whose header promises 20,000 x 20,000 pixels."""
    header = b"IHDR" + (20_000).to_bytes(4, "big") * 2 + b"\x08\x02\0\0\0"
    whole = written(photo(), "PNG")
    return whole[:12] + header + zlib.crc32(header).to_bytes(4, "big") + whole[33:]


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (b"", "here: empty: no bytes"),
        (b"no picture\n at all", "here: not an image: starts with"),
        (b"<svg xmlns='http://www.w3.org/2000/svg'/>", "here: svg: a vector drawing"),
        (picture("coffee.png", 1)[:-40], "here: truncated: "),
        (_bomb(), "here: too many pixels: "),
    ],
)
def test_what_is_no_picture_is_one_line(data: bytes, said: str) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(CorruptRecordError) as caught:
            decode(data, SIDE, "here")
    assert str(caught.value).startswith(said) and "\n" not in str(caught.value)


def test_kept_features_follow_the_decoder(tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    class Shards:
        hash = "shards"

    corpus: Any = Shards()
    before = feature_folder(tmp_path, corpus, "tower", SIDE)
    parsed = schemas.keys._parsed

    def changed(module: str) -> tuple[str, frozenset[str]] | None:
        found = parsed(module)
        return ("another", found[1]) if found and module == decode.__globals__["decode_picture"].__module__ else found

    monkeypatch.setattr(schemas.keys, "_parsed", changed)
    assert feature_folder(tmp_path, corpus, "tower", SIDE) != before
