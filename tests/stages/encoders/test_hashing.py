"""`hash:WIDTH`: what stands in for an encoder where none is needed."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from stages.encoders.availability import check_encoder, weights_hash
from stages.encoders.names import UnknownEncoder, parse
from stages.encoders.registry import load_encoder

WIDTH = 64


@settings(deadline=None, max_examples=50)
@given(st.lists(st.text(max_size=40), min_size=1, max_size=5))
def test_every_text_has_a_unit_vector_of_its_own_content(texts: list[str]) -> None:
    encoder = load_encoder(f"hash:{WIDTH}", "text")
    together = encoder.encode(texts)
    assert together.shape == (len(texts), WIDTH) and together.dtype == np.float32
    np.testing.assert_allclose(np.linalg.norm(together, axis=1), 1.0, rtol=1e-6)
    assert np.array_equal(together, np.concatenate([encoder.encode([text]) for text in texts]))


def test_what_is_alike_is_near() -> None:
    words = load_encoder("hash:512", "text").encode(
        ["a red fox runs home", "the red fox runs", "stocks fell on Monday"]
    )
    assert words[0] @ words[1] > words[0] @ words[2] + 0.2
    red, pink, blue = (Image.new("RGB", (90, 60), colour) for colour in ((200, 0, 0), (200, 0, 70), (0, 0, 200)))
    pictures = load_encoder("hash:512", "image").encode([red, pink, blue])
    assert pictures[0] @ pictures[1] > pictures[0] @ pictures[2] + 0.2


@pytest.mark.slow
def test_another_process_gives_the_same_bits_without_weights() -> None:
    code = (
        "import sys; from stages.encoders.embed import EmbedSentences, EmbedSettings;"
        f"names = dict.fromkeys(('image_primary', 'sentence_primary', 'shared'), 'hash:{WIDTH}');"
        "import pyarrow; EmbedSentences(EmbedSettings(**names))(pyarrow.table({'text': ['one']}));"
        "assert 'torch' not in sys.modules, 'it takes seconds';"
        "from stages.encoders.registry import load_encoder;"
        f"print(load_encoder('hash:{WIDTH}', 'text').encode(['one two']).tobytes().hex())"
    )
    env = {"INTERLOOM_CACHE": "/nonexistent", "PYTHONHASHSEED": "7", "PATH": ""}
    told = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True, check=True).stdout
    assert told.strip() == load_encoder(f"hash:{WIDTH}", "text").encode(["one two"]).tobytes().hex()
    check_encoder("hash:8", "image")
    assert weights_hash("hash:8", "text") == load_encoder("hash:8", "text").weights != weights_hash("hash:9", "text")


@pytest.mark.parametrize(
    "name", ["hash:", "hash", "hash:0", "hash:7", "hash:4097", "hash:x", "hash:-8", "hash:²", "hash:" + "9" * 5000]
)
def test_a_width_that_is_none_is_a_mistake(name: str) -> None:
    with pytest.raises(UnknownEncoder, match="hash:"):
        parse(name, "text")
