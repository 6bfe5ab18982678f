"""Strict YAML: what PyYAML's safe loader takes, with no key twice in a mapping, and every mistake as one line.

Numbers with an exponent are read by YAML 1.2's core schema: 1e-4 is a number. PyYAML reads YAML 1.1, in which it is
text, for want of a dot and of a sign.
"""

from __future__ import annotations

import re
from typing import Any

import yaml
from yaml.composer import ComposerError
from yaml.constructor import ConstructorError
from yaml.nodes import MappingNode, Node, ScalarNode
from yaml.reader import ReaderError

# Collections within one another. PyYAML goes down a few calls for each, and Python ends at a thousand calls.
MAX_DEPTH = 50

_EXPONENT = re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)[eE][-+]?[0-9]+\Z")


class NotYaml(ValueError):
    """Text that is no such YAML: one line says why, `line`, counted from 1, where, if that is known."""

    def __init__(self, said: str, line: int | None) -> None:
        super().__init__(" ".join(said.split()))
        self.line = line


def load_yaml(text: str) -> Any:
    """The value of a YAML document, aliases resolved; NotYaml for everything that is none."""
    try:
        return yaml.load(text, _Loader)
    except ReaderError as error:
        line = text.count("\n", 0, error.position) + 1
        raise NotYaml(f"it holds the character U+{error.character:04X}, which YAML does not allow", line) from None
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        raise NotYaml(error.problem or error.context or "", mark.line + 1 if mark else None) from None


class _Loader(yaml.SafeLoader):
    def __init__(self, text: str) -> None:
        super().__init__(text)
        self._depth = 0

    def compose_node(self, parent: Node | None, index: Any) -> Node | None:
        self._depth += 1
        if self._depth > MAX_DEPTH:
            mark = self.peek_event().start_mark  # type: ignore[no-untyped-call]  # PyYAML annotates nothing
            raise ComposerError(None, None, f"more than {MAX_DEPTH} levels", mark)
        node: Node | None = super().compose_node(parent, index)
        self._depth -= 1
        return node

    def compose_mapping_node(self, anchor: Any) -> MappingNode:
        # Here and not where values are made: by then `<<` has put the keys of another mapping among these.
        node: MappingNode = super().compose_mapping_node(anchor)
        lines: dict[tuple[str, str], int] = {}
        for key, _ in node.value:
            if isinstance(key, ScalarNode):
                name = (key.tag, key.value)
                if name in lines:
                    said = f"the key {key.value!r} stands twice in one mapping, first in line {lines[name]}"
                    raise ComposerError(None, None, said, key.start_mark)
                lines[name] = key.start_mark.line + 1
        return node

    def construct_object(self, node: Node, deep: bool = False) -> Any:
        try:
            return super().construct_object(node, deep)
        except (ValueError, KeyError, TypeError, AttributeError, OverflowError):
            # A day that no month has, digits beyond what Python takes, a tag that does not fit its value.
            shown = node.value if isinstance(node, ScalarNode) else "this"
            shown = shown if len(shown) <= 40 else f"{shown[:40]}..."
            kind = node.tag.rpartition(":")[2]
            said = f"{shown} is no valid {kind}; in quotes it would be text"
            raise ConstructorError(None, None, said, node.start_mark) from None


# The list is the characters that such a number may start with.
_Loader.add_implicit_resolver("tag:yaml.org,2002:float", _EXPONENT, list("-+.0123456789"))
