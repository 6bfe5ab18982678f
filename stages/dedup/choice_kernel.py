"""Compiled work on the choice among copies: which document holds its groups, which holds a repeated paragraph.

numba is imported with this module, so it is imported where it is first needed. Nothing here starts a thread.
"""

from __future__ import annotations

from typing import Any

from stages.dedup.compiled import jit


@jit
def settle(order: Any, starts: Any, url: Any, cluster: Any, rank: Any, holder: Any) -> None:
    """holder[c]: the document that stays of cluster c, by deferred acceptance (Gale and Shapley 1962).

    `order`: documents, those of URL u from starts[u] to starts[u + 1], the one it would keep first. A URL offers its
    documents one after the other until a cluster holds one; a cluster gives up what it holds for a smaller `rank`.
    """
    holder[:] = -1
    offered = starts[:-1].copy()
    for first in range(len(offered)):
        u = first
        while offered[u] < starts[u + 1]:
            document = order[offered[u]]
            offered[u] += 1
            c = cluster[document]
            held = holder[c]
            if held < 0:
                holder[c] = document
                break
            if rank[document] < rank[held]:
                holder[c] = document
                u = url[held]


@jit
def cut_repeated(
    starts: Any, group: Any, words: Any, left: Any, fewest: float, keeper: Any, cut: Any, lost: Any
) -> None:
    """Of each group of equal paragraphs the first document that stays keeps its copy; the others' are cut.

    Document d has the paragraphs starts[d] to starts[d + 1], with their group (-1: may stand where it likes) and words,
    and left[d] words in all. Documents go one after the other: what an earlier one keeps is cut; where that leaves
    fewer than `fewest` words the document falls (lost[d] < 0: minus the words that it would have lost, and it keeps
    and cuts nothing), else lost[d] words are cut.
    """
    keeper[:] = -1
    for d in range(len(left)):
        gone = 0.0
        for row in range(starts[d], starts[d + 1]):
            g = group[row]
            if g < 0:
                continue
            if keeper[g] < 0:
                keeper[g] = d
            else:
                cut[row] = True
                gone += words[row]
        lost[d] = gone
        if gone > 0 and left[d] - gone < fewest:
            lost[d] = -gone
            for row in range(starts[d], starts[d + 1]):
                cut[row] = False
                if group[row] >= 0 and keeper[group[row]] == d:
                    keeper[group[row]] = -1
