"""A signal: one thing that a site said about use, under the name that decisions give its kind."""

from __future__ import annotations

from typing import Literal, NamedTuple

Kind = Literal["robots", "ai_txt", "tdmrep", "content_signal", "rsl", "x_robots_tag", "meta_robots"]


class Signal(NamedTuple):
    """Told by a file of the origin, a header or a meta tag."""

    signal: Kind
    """Its kind, which is the rule of the decisions that it leads to."""
    said: str
    """What was said, in one line: "Disallow: /private/", "tdm-reservation: 1"."""
