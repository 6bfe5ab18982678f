"""How deep the HTML standard's parser would nest a page, and the same page with every tag closed in order.

The parser's work a tag grows with the elements that are open and with the formatting elements that are to be opened
again (`<b>` in an unclosed `<p>`). `Nesting` follows both as the standard's tree construction does, and where that
would need more of its state, it errs to one side: it may hold more elements than the parser, never fewer. A page whose
end tags were rewritten by `balanced` nests just as deep as `Nesting` says, whatever the parser thinks of its tags.
"""

from __future__ import annotations

import re
from collections import Counter

from stages.extract.vocabulary import HEADINGS, word_set

VOID = word_set(
    "area base basefont bgsound br col embed frame hr image img input keygen link meta param source track wbr"
)
FORMATTING = word_set("a b big code em font i nobr s small strike strong tt u")
# Content that is text to the tokenizer.
RAW = word_set("script style textarea title xmp iframe noembed noframes plaintext")
_ROOTS = word_set("html head body frameset")  # of each there is one, or none
_MARKERS = word_set("applet marquee object td th caption template")  # of the list of active formatting elements
_INTEGRATION = word_set("foreignobject desc title mi mo mn ms mtext annotation-xml")
_SCOPE = _MARKERS | _INTEGRATION | {"table", "select"}  # where the search for an open element ends
_TABLE_PARTS = word_set("caption colgroup col tbody thead tfoot tr td th")
_ROW_GROUPS = word_set("tbody thead tfoot")
_CELLS = word_set("td th caption")
_SCOPED = word_set(
    "address article aside blockquote button center details dialog dir div dl fieldset figcaption figure footer header",
    "hgroup listing main menu nav ol pre search section select summary ul p li dd dt applet marquee object",
)
_CLOSES_P = (_SCOPED | HEADINGS | word_set("hr xmp plaintext")) - word_set("button select applet marquee object")
_SPECIAL = (
    _SCOPED | HEADINGS | VOID | RAW | _ROOTS | _TABLE_PARTS | _INTEGRATION | word_set("form noscript")
) | word_set("table template")
_WALLS = _SPECIAL - word_set("address div p")
_CLOSING = _CLOSES_P | word_set("button a nobr option optgroup")  # start tags that may end what is open
# HTML elements that end an <svg> or <math> they stand in.
_BREAKOUT = (
    HEADINGS
    | word_set(
        "b big blockquote body br center code dd div dl dt em embed head hr i img li listing menu meta nobr ol p pre"
    )
    | word_set("ruby s small span strong strike sub sup table tt u ul var")
)

_BLANK = r"\t\n\f\r "
_ATTRIBUTE = (
    rf"[{_BLANK}/]*+[^{_BLANK}/>][^{_BLANK}/>=]*+"
    rf"(?:[{_BLANK}]*+=[{_BLANK}]*+(?:\"[^\"]*+\"?+|'[^']*+'?+|[^{_BLANK}>\"'][^{_BLANK}>]*+)?+)?+"
)
ATTRIBUTE = re.compile(_ATTRIBUTE)
# One token of the standard's tokenizer: comment, declaration, or tag; what is unclosed runs to the end.
TOKEN = re.compile(
    r"<(?:!--(?:-?>|.*?(?:--!?>|\Z))"
    r"|[!?][^>]*+(?:>|\Z)"
    r"|/[^a-zA-Z>][^>]*+(?:>|\Z)"
    rf"|(?P<end>/?)(?P<name>[a-zA-Z][^{_BLANK}/>]*+)(?P<attributes>(?:{_ATTRIBUTE})*+)"
    rf"(?P<rest>[{_BLANK}/]*+)(?P<close>>|\Z))",
    re.DOTALL,
)
_RAW_END = {name: re.compile(rf"</{name}(?=[{_BLANK}/>])", re.IGNORECASE) for name in RAW - {"plaintext"}}
_MAX_FORMATTING = 16  # open inline tags of a balanced page: so often one may be repeated for each of its blocks


class Nesting:
    """The open elements of a page, from tag to tag."""

    def __init__(self) -> None:
        self.names: list[str] = []
        self.num_formatting = 0
        """Formatting elements that were closed by another's end, and that the parser opens again where text follows."""
        self._keys: list[str] = []  # as in names, or "?" where only the end of something around it is sure to close it
        self._tags: list[str] = []  # names and attributes of formatting elements
        self._foreign: list[bool] = []
        self._special: list[int] = []
        self._walls: list[int] = []  # special elements that a new <li>, <dt> or <dd> does not look beyond
        self._scope: list[int] = []
        self._places: dict[str, list[int]] = {}
        self._pending: list[Counter[str]] = [Counter()]

    def start(self, name: str, attributes: str, self_closing: bool) -> tuple[list[str], bool]:
        """Names of the elements that a start tag closes, innermost first, and whether it opens one itself."""
        foreign = self.in_foreign
        closed: list[str] = []
        if foreign and (name in _BREAKOUT or (name == "font" and attributes)):
            while self.in_foreign:
                closed += self._close(len(self.names) - 1)
            foreign = False
        if foreign or name in ("svg", "math"):
            if not self_closing:
                self._open(name, attributes, name, name not in _INTEGRATION)
            return closed, not self_closing
        if name in _ROOTS:
            return closed, False
        key = name
        if name in _TABLE_PARTS:
            table, blocked = self._last("table"), self._last("template", "svg", "math", "select")
            if blocked > table:
                key = "?"
            elif table < 0:
                return closed, False  # ignored outside of tables
            else:
                closed += self._close(self._table_context(name, table))
        elif name == "table" and (table := self._last("table")) > self._last(
            "template", "select", "svg", "math", *_CELLS
        ):
            closed += self._close(table)  # directly in another: ends it
        elif name in ("select", "input", "keygen", "textarea") and (select := self._ended("select")) >= 0:
            closed += self._close(select)
            if name == "select":
                return closed, False
        if name in _CLOSING:
            closed += self._implied(name)
        if name in VOID:
            return closed, False
        self._open(name, attributes, key, False)
        return closed, True

    def end(self, name: str) -> list[str]:
        """Names of the elements that an end tag closes, innermost first."""
        if name in ("p", "br"):
            closed = []
            while self.in_foreign:
                closed += self._close(len(self.names) - 1)
            return closed + (self._close(at) if (at := self._ended("p")) >= 0 and name == "p" else [])
        if name in FORMATTING and self._forget(name):
            return []
        at = self._ended(name)
        return self._close(at, own=True) if at >= 0 else []

    def settle(self) -> None:
        """Nothing is to be opened again: each element was closed by an end tag of its own."""
        if self.num_formatting:
            self._pending = [Counter() for _ in self._pending]
            self.num_formatting = 0

    @property
    def in_foreign(self) -> bool:
        """Whether the innermost element is one of SVG or MathML, and the next not read as HTML."""
        return bool(self._foreign) and self._foreign[-1]

    @property
    def depth(self) -> int:
        """Elements that are open, with those to be opened again."""
        return len(self.names) + self.num_formatting

    def num_open(self, names: frozenset[str]) -> int:
        """How many of the open elements have one of the names."""
        return sum(len(self._places.get(name, ())) for name in names)

    def _ended(self, name: str) -> int:
        """Index of the element that an end tag is sure to close, with all above it; -1 for none."""
        at = self._last(*HEADINGS) if name in HEADINGS else self._last(name)
        if at < 0:
            return -1
        if name == "template":
            return at
        if name == "form":
            return at if at == len(self.names) - 1 else -1
        if name == "table" or name in _TABLE_PARTS:
            return at if at >= self._last("table", "template") else -1
        if name in _SCOPED or name in HEADINGS:
            stops = {"p": ("button",), "li": ("ol", "ul")}.get(name, ())
            return at if at >= _top(self._scope) and at > self._last(*stops) else -1
        through_foreign = self.in_foreign and not self._foreign[at]
        return at if at >= _top(self._special) and not through_foreign else -1

    def _implied(self, name: str) -> list[str]:
        """What a start tag closes although no end tag says so."""
        closed: list[str] = []
        at = -1
        if name == "li":
            at = self._last("li")
        elif name in ("dd", "dt"):
            at = self._last("dd", "dt")
        if at >= max(0, _top(self._walls)):
            closed += self._close(at)
        if name in _CLOSES_P and (at := self._ended("p")) >= 0:
            closed += self._close(at)
        if name in ("button", "a", "nobr") and (at := self._ended(name)) >= 0:
            closed += self._close(at, own=True)
        top = self._keys[-1] if self._keys else ""
        if (name in HEADINGS and top in HEADINGS) or (name in ("option", "optgroup") and top == "option"):
            closed += self._close(len(self.names) - 1)
        return closed

    def _table_context(self, name: str, table: int) -> int:
        """Length of the stack that a part of the table at index `table` is put on."""
        group, row, cell = self._last(*_ROW_GROUPS), self._last("tr"), self._last("td", "th")
        if name in ("td", "th") and row > table:
            return row + 1
        if name in ("td", "th", "tr") and group > table:
            return group + 1
        return cell if name in ("td", "th") and cell > table else table + 1

    def _last(self, *names: str) -> int:
        last = -1
        for name in names:
            places = self._places.get(name)
            if places and places[-1] > last:
                last = places[-1]
        return last

    def _open(self, name: str, attributes: str, key: str, foreign: bool) -> None:
        self._places.setdefault(key, []).append(len(self.names))
        self.names.append(name)
        self._keys.append(key)
        self._tags.append(name + attributes if name in FORMATTING else "")
        self._foreign.append(foreign)
        if name in _SPECIAL:
            self._special.append(len(self.names) - 1)
            if name in _WALLS:
                self._walls.append(len(self.names) - 1)
                if name in _SCOPE:
                    self._scope.append(len(self.names) - 1)
                    self._pending.append(Counter())

    def _close(self, length: int, own: bool = False) -> list[str]:
        closed = []
        while len(self.names) > length:
            name, tag = self.names.pop(), self._tags.pop()
            self._places[self._keys.pop()].pop()
            self._foreign.pop()
            if name in _SPECIAL:
                self._special.pop()
                if name in _WALLS:
                    self._walls.pop()
                    if name in _SCOPE:
                        self._scope.pop()
                        self._leave_scope(self._pending.pop(), name in _MARKERS)
            closed.append(name)
            if tag and not (own and len(self.names) == length):
                self._pending[-1][tag] += 1
                self.num_formatting += 1
        return closed

    def _leave_scope(self, pending: Counter[str], forgotten: bool) -> None:
        if forgotten:
            self.num_formatting -= pending.total()
        else:
            self._pending[-1].update(pending)

    def _forget(self, name: str) -> bool:
        """Take one formatting element of the name off those to be opened again; an end tag ends none out of scope."""
        pending = self._pending[-1]
        for tag in pending:
            if tag.startswith(name) and not tag[len(name) : len(name) + 1].isalpha():
                pending[tag] -= 1
                self.num_formatting -= 1
                if not pending[tag]:
                    del pending[tag]
                return True
        return False


def _top(places: list[int]) -> int:
    return places[-1] if places else -1


def is_safe(text: str, max_depth: int, max_copies: int) -> bool:
    """Whether the parser can read the page as it is: not too deep, and with few formatting elements to open again.

    `max_copies`: how many copies of formatting elements the parser may make; each tag may need one of all that are
    pending. False also where the parser may see other tags: raw text inside <svg>, <math> or <select>, scripts in
    scripts; and for a tag, or several <html> or <body> tags, with very many attributes.
    """
    nesting = Nesting()
    num_tags = text.count("<")
    num_roots = position = 0
    while token := TOKEN.search(text, position):
        position = token.end()
        name = token["name"]
        if name is None:
            if token[0].startswith("<![CDATA[") and nesting.num_open(_FOREIGN):
                return False
            continue
        name = name.lower()
        if token["end"]:
            nesting.end(name)
            continue
        attributes = token["attributes"]
        num_roots += name in _ROOTS
        raw = name in RAW and not (nesting.in_foreign and token["rest"].endswith("/"))
        nesting.start(name, attributes, token["rest"].endswith("/"))
        if raw:
            end = _raw_end(text, name, position)
            content = text[position:end]
            doubly_escaped = name == "script" and "<!--" in content and "<script" in content.lower()
            markup = name == "plaintext" or nesting.num_open(_RAW_IS_MARKUP)
            if doubly_escaped or (markup and "<" in content):
                return False
            position = end
        if (
            nesting.depth > max_depth
            or nesting.num_formatting > _MAX_PENDING
            or nesting.num_formatting * num_tags > max_copies
            or num_roots > _MAX_ROOTS
            or has_many_attributes(attributes)
        ):
            return False
    return True


_FOREIGN = frozenset(("svg", "math"))
_RAW_IS_MARKUP = _FOREIGN | {"select"}
_MAX_PENDING = 64
_MAX_ROOTS = 64  # <html>, <head> and <body> tags: the attributes of each go to the one element
_LONG_TAG = 4096  # characters of attributes from where they are counted
MAX_ATTRIBUTES = 256  # of one tag; real ones have at most a few dozen


def has_many_attributes(attributes: str) -> bool:
    """Whether a tag has more attributes than MAX_ATTRIBUTES."""
    return len(attributes) > _LONG_TAG and sum(1 for _ in ATTRIBUTE.finditer(attributes)) > MAX_ATTRIBUTES


def _raw_end(text: str, name: str, position: int) -> int:
    end = None if name == "plaintext" else _RAW_END[name].search(text, position)
    return end.start() if end else len(text)


def balanced(text: str, max_depth: int) -> tuple[str, int]:
    """The page with each tag closed in order and none deeper than `max_depth`, and how many tags were left out.

    What stands inside a tag that is left out stays, one level up, as in browsers. Comments and the content of scripts,
    styles and frames are left out, which are no text of the page; preformatted raw text becomes a <pre>.
    """
    nesting = Nesting()
    ignored: Counter[str] = Counter()
    pieces: list[str] = []
    position = num_cut = num_roots = 0
    while token := TOKEN.search(text, position):
        pieces.append(text[position : token.start()].replace("<", "&lt;"))
        position = token.end()
        name = (token["name"] or "").lower()
        if not name or not token["close"]:
            if token[0][:9].lower() == "<!doctype":
                pieces.append(token[0])
            continue
        if token["end"]:
            if ignored[name]:
                ignored[name] -= 1
                pieces.append(" " if name in _SPECIAL else "")
            else:
                pieces += [f"</{each}>" for each in nesting.end(name)]
                nesting.settle()
            continue
        self_closing = token["rest"].endswith("/")
        if name in RAW and not (nesting.in_foreign and self_closing):
            end = _raw_end(text, name, position)
            content = text[position:end].replace("<", "&lt;")
            position = end
            if name in ("xmp", "plaintext"):
                pieces += ["<pre>", content, "</pre>"]
            else:
                pieces += [token[0], content if name in ("title", "textarea") else "", f"</{name}>"]
            continue
        if (name not in VOID and name not in _ROOTS) or nesting.in_foreign:
            formatting = name in FORMATTING and nesting.num_open(FORMATTING) >= _MAX_FORMATTING
            if formatting or len(nesting.names) >= max_depth:
                ignored[name] += 1
                num_cut += 1
                pieces.append(" " if name in _SPECIAL else "")  # a block that is left out still ends a word
                continue
        closed, opened = nesting.start(name, token["attributes"], self_closing)
        nesting.settle()
        pieces += [f"</{each}>" for each in closed]
        num_roots += name in _ROOTS
        root = name in _ROOTS and num_roots <= _MAX_ROOTS
        if opened or root or name in VOID or (self_closing and nesting.in_foreign):
            pieces.append(token[0])
    pieces.append(text[position:].replace("<", "&lt;"))
    return "".join(pieces), num_cut
