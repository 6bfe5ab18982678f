"""Expectations: what the spec says the corpus must be like, held against what came out."""

from __future__ import annotations

from collections.abc import Mapping

from pipeline.spec.sections import ExpectSettings


def measured(counts: Mapping[str, int]) -> dict[str, float]:
    """The values that expectations bound, from a build's counts (phase.name -> number)."""

    def share(part: str, whole: str) -> float:
        return counts.get(part, 0) / counts[whole] if counts.get(whole) else 0.0

    return {
        "documents": float(counts.get("shards.documents", 0)),
        "images": float(counts.get("shards.images", 0)),
        "negatives": float(counts.get("shards.negatives", 0)),
        "images_fetched": share("images.images_ok", "fetched_images.image_urls"),
        "documents_kept": share("shards.documents", "documents.documents"),
    }


def unmet(expect: ExpectSettings, counts: Mapping[str, int]) -> list[str]:
    """One line for each expectation that does not hold."""
    lines = []
    for name, value in measured(counts).items():
        bound = getattr(expect, name)
        if bound.min is not None and value < bound.min:
            lines.append(f"{name} is {value:g}, expected at least {bound.min:g}")
        if bound.max is not None and value > bound.max:
            lines.append(f"{name} is {value:g}, expected at most {bound.max:g}")
    return lines
