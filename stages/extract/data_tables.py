"""Tables that hold data, and tables that only arrange a page."""

from __future__ import annotations

from stages.extract.tree import Tree
from stages.extract.vocabulary import HEADINGS, PREFORMATTED, word_set

_NOT_IN_DATA = PREFORMATTED | HEADINGS | word_set("table img amp-img ul ol dl blockquote figure form")
_CELL_LENGTH = 300  # characters; longer cells are layout, not data


def is_data_table(tree: Tree, index: int) -> bool:
    """Rows of short cells, two or more abreast, without blocks or images inside."""
    num_abreast = most_abreast = 0
    for i in range(index + 1, tree.ends[index]):
        tag = tree.tags[i]
        if tag in ("td", "th"):
            if tree.text_length(i) > _CELL_LENGTH:
                return False
            num_abreast += 1
            most_abreast = max(most_abreast, num_abreast)
        elif tag == "tr":
            num_abreast = 0
        elif tag in _NOT_IN_DATA:
            return False
    return most_abreast >= 2
