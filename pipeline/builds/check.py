"""Mistakes in a spec and in what is asked of it that can be found without starting anything."""

from __future__ import annotations

from pipeline.engine.mistake import UserMistake
from pipeline.phases.graph import graph, names
from pipeline.phases.sources import check_source
from pipeline.spec.loading import Spec
from stages.encoders.embed import check_available
from stages.encoders.protocol import WeightsMissing


def check(spec: Spec, until: str | None) -> None:
    """UserMistake for what is not there: a phase, an operator, anything in the source, weights on this machine."""
    if until is not None and until not in names():
        raise UserMistake(f"--until {until}: no such phase; there are {', '.join(names())}")
    check_source(spec)
    if spec.resources.operators:
        there = [name for phase in graph(spec) for name in phase.operators]
        if unknown := sorted(set(spec.resources.operators) - set(there)):
            raise UserMistake(f"resources.operators.{unknown[0]}: no such operator; there are {', '.join(there)}")
    if until is None or names().index(until) >= names().index("embeddings"):
        try:
            # Now, and not when all is crawled and they are asked for the first time.
            check_available(spec.embed)
        except WeightsMissing as error:
            raise UserMistake(f"embed: {error}") from None
