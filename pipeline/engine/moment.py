"""Moments as records and manifests have them."""

from __future__ import annotations

import time

# ISO 8601, UTC, to the second.
FORMAT = "%Y-%m-%dT%H:%M:%SZ"


def now() -> str:
    """This moment in FORMAT."""
    return time.strftime(FORMAT, time.gmtime())
