"""What a build is to make."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from pipeline.spec.loading import Spec


@dataclass(frozen=True)
class Order:
    """What is to be built, and the words of the command that asked for it."""

    spec: Spec
    label: str  # of the spec, as --spec gave it
    overrides: Sequence[str] = ()  # key=value
    until: str | None = None
    retry_failed: bool = False
    dashboard: bool = False  # of Ray, which shows what the operators are at
