"""A share of a source, chosen by the URLs of its pages: always the same ones, and a larger share holds them too."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import xxhash
from numpy.typing import NDArray

# The hash is none of those that spread rows over parts or choose what is held out.
_SEED = 0x5A3B1E


def in_sample(url: str, share: float) -> bool:
    """Whether a page is in the sample of this share (0..1]: its hash lies in that part of all hashes."""
    if share >= 1:
        return True
    return xxhash.xxh3_64_intdigest(url.encode("utf-8", "surrogatepass"), seed=_SEED) < share * 2.0**64


@dataclass
class Sample:
    """A sample being taken: what it leaves out is counted."""

    share: float = 1.0
    left_out: int = 0

    def takes(self, url: str) -> bool:
        """Whether the page of a URL is in; counted when it is not."""
        taken = in_sample(url, self.share)
        self.left_out += not taken
        return taken

    def mask(self, urls: Sequence[str]) -> NDArray[np.bool_]:
        """`takes` of every URL, bool (n,)."""
        if self.share >= 1:
            return np.ones(len(urls), np.bool_)
        return np.fromiter(map(self.takes, urls), np.bool_, len(urls))
