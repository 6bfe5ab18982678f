"""The pack plan: which segments meet in which step, as a pure function.

`plan_epoch(rows, seed, epoch, ...)` depends on its arguments alone: not on ranks, workers or the machine. Ranks
slice it, resume re-computes it, and a test can print it. Every segment appears at most once an epoch; a
document's mined negatives are placed in the same step while they fit, which makes rows of the structure loss
informative; packs of a step are balanced by tokens.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import xxhash

from trainer.data.rows import Row


@dataclass(frozen=True)
class Entry:
    """One segment in a pack, with the slices shown once more as bare sequences."""

    row: int  # index into the rows
    views: tuple[int, ...]
    tokens: int  # of segment and views


Pack = tuple[Entry, ...]


@dataclass(frozen=True)
class Plan:
    """Steps of packs, and how many segments were left over because they fill no whole step."""

    steps: tuple[tuple[Pack, ...], ...]
    left_out: int


def seeded(*parts: object) -> int:
    """A 64-bit number from its arguments' text; the same on every machine and rank."""
    return xxhash.xxh3_64_intdigest("\0".join(str(part) for part in parts).encode())


def draw_views(row: Row, seed: int, epoch: int, pairs: int, room: int) -> tuple[tuple[int, ...], int]:
    """(slices shown bare, their tokens): up to `pairs` pairs of the row that fit in `room` tokens."""
    order = sorted(row.pairs, key=lambda pair: seeded("view", seed, epoch, row.document_id, pair[0]))
    chosen: list[int] = []
    tokens = 0
    for image, sentence, cost in order:
        if len(chosen) // 2 == pairs:
            break
        if tokens + cost <= room:
            chosen += [image, sentence]
            tokens += cost
    return tuple(chosen), tokens


def plan_epoch(rows: Sequence[Row], seed: int, epoch: int, pack_tokens: int, packs_per_step: int, views: int) -> Plan:
    """One epoch's plan over `rows` (those to train on), as described at the top of this file.

    Segments longer than `pack_tokens` must not be there. Raises ValueError when one is.
    """
    entries: dict[int, Entry] = {}
    for index, row in enumerate(rows):
        if row.tokens > pack_tokens:
            raise ValueError(f"document {row.document_id}: a segment of {row.tokens} tokens exceeds {pack_tokens}")
        chosen, cost = draw_views(row, seed, epoch, views, pack_tokens - row.tokens)
        entries[index] = Entry(index, chosen, row.tokens + cost)
    holder = {(row.document_id, piece): i for i, row in enumerate(rows) for piece in _slices(row)}
    queue = sorted(entries, key=lambda i: (seeded("plan", seed, epoch, rows[i].document_id, rows[i].segment.first), i))
    waiting = dict.fromkeys(queue)  # insertion-ordered set
    steps: list[tuple[Pack, ...]] = []
    left_out = 0
    while waiting:
        loads = _Loads(pack_tokens, packs_per_step)
        for first in list(waiting):
            if first not in waiting:
                continue
            if not loads.place(entries[first]):
                break
            del waiting[first]
            # Breadth first: the negatives of what was just placed are the next best neighbours.
            placed = [first]
            for anchor in placed:
                for negative in rows[anchor].negatives:
                    other = holder.get(negative)
                    if other is not None and other in waiting and loads.place(entries[other]):
                        del waiting[other]
                        placed.append(other)
        if all(loads.packs):
            steps.append(tuple(tuple(pack) for pack in loads.packs))
        else:
            left_out += sum(len(pack) for pack in loads.packs)
    return Plan(tuple(steps), left_out)


def _slices(row: Row) -> range:
    return range(row.segment.first, row.segment.last)


class _Loads:
    """Packs being filled: an entry goes to the emptiest pack that has room."""

    def __init__(self, pack_tokens: int, packs: int) -> None:
        self.pack_tokens = pack_tokens
        self.packs: list[list[Entry]] = [[] for _ in range(packs)]
        self.tokens = [0] * packs

    def place(self, entry: Entry) -> bool:
        """Whether it found room."""
        target = min(range(len(self.packs)), key=lambda pack: (self.tokens[pack], pack))
        if self.tokens[target] + entry.tokens > self.pack_tokens:
            return False
        self.packs[target].append(entry)
        self.tokens[target] += entry.tokens
        return True


@dataclass(frozen=True)
class PlanReport:
    """What a plan is like: shares are of 0 .. 1."""

    steps: int
    segments: int
    left_out: int
    tokens: int
    padding: float  # share of the packs' room left empty
    imbalance: float  # mean over steps of (largest pack - smallest) / largest, in tokens
    with_negative: float  # share of segments with negatives that have at least one in their step
    with_negative_random: float  # the same for a plan that ignores negatives


def describe(rows: Sequence[Row], plan: Plan, blind: Plan, pack_tokens: int) -> PlanReport:
    """The report of `plan`, beside `blind`, the plan of the same rows without their negatives."""
    loads = [[sum(entry.tokens for entry in pack) for pack in step] for step in plan.steps]
    total = sum(map(sum, loads))
    room = sum(map(len, loads)) * pack_tokens
    spread = [(max(step) - min(step)) / max(step) for step in loads]
    return PlanReport(
        steps=len(plan.steps),
        segments=sum(len(pack) for step in plan.steps for pack in step),
        left_out=plan.left_out,
        tokens=total,
        padding=1 - total / room if room else 0.0,
        imbalance=sum(spread) / len(spread) if spread else 0.0,
        with_negative=_share_with_negative(rows, plan),
        with_negative_random=_share_with_negative(rows, blind),
    )


def _share_with_negative(rows: Sequence[Row], plan: Plan) -> float:
    holder = {(row.document_id, piece): i for i, row in enumerate(rows) for piece in _slices(row)}
    asked = met = 0
    for step in plan.steps:
        present = {entry.row for pack in step for entry in pack}
        for index in sorted(present):
            targets = {holder[negative] for negative in rows[index].negatives if negative in holder}
            asked += bool(targets)
            met += bool(targets & present)
    return met / asked if asked else 0.0
