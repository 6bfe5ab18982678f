"""The build itself: what is left to do is done on a Ray."""

from __future__ import annotations

import time
from collections.abc import Iterator

from pipeline.builds.dry_run import finished_until, version_at_hand
from pipeline.builds.order import Order
from pipeline.corpus.summary import summarize
from pipeline.engine.cluster import check_output, check_shared, connected, submitted
from pipeline.phases.graph import names


def build(order: Order) -> Iterator[str]:
    """Build, or find that nothing is left to do; lines for people that say what came out.

    UserMistake for an output that cannot be used, before a Ray is started for it.
    """
    began = time.monotonic()
    spec = order.spec
    # On a cluster its workers have not been seen to share the output yet.
    if not submitted() and (lines := _nothing_left(order, began)) is not None:
        yield from lines
        return
    storage = check_output(spec.output.url)
    # Ray Data takes seconds to load, of which a build that finds nothing to do has no use.
    from pipeline.builds.at_work import make
    from pipeline.builds.recording import recorded

    megabytes = spec.resources.object_store_megabytes
    store = megabytes * 1_000_000 if megabytes else None
    with connected(spec.resources.workers, store, dashboard=order.dashboard) as found:
        if submitted():
            check_shared(storage)
            if (lines := _nothing_left(order, began)) is not None:
                yield from lines
                return
        with recorded(storage, spec, order.label, order.overrides, names()) as recording:
            corpus = make(order, storage, found, recording, began)
    if corpus is not None:
        yield from summarize(corpus, seconds=time.monotonic() - began)


def _nothing_left(order: Order, began: float) -> list[str] | None:
    """Lines that say that all is there that was asked for; None where something is left to do."""
    if order.retry_failed:
        return None
    if order.until is not None:
        said = f"nothing to do: every phase up to {order.until} is finished"
        return [said] if finished_until(order.spec, order.until) else None
    if (there := version_at_hand(order.spec)) is None:
        return None
    return ["nothing to do: every phase is finished", *summarize(there, seconds=time.monotonic() - began)]
