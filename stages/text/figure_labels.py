"""Numbers of figures: what a caption is called ("Figure 3.2: ..."), what a sentence refers to ("see Figs. 2 and 4").

A label is (kind, number): figures, tables and the like are counted apart, and a kind has one name in all languages.
"""

from __future__ import annotations

import re

Label = tuple[str, str]

# Words as they stand in captions; those of one language and script each on a line.
_WORDS = {
    "figure": (
        "figures? figs? abbildung(?:en)? abb bild figuras? figura kuva kuvio figur afbeelding afb rycina rys",
        "obr(?:\u00e1zek)? slika \u015fekil \u0440\u0438\u0441(?:\u0443\u043d\u043e\u043a|\u0443\u043d\u043a\u0435)? "
        "\u03b5\u03b9\u03ba\u03cc\u03bd\u03b1 \u03c3\u03c7\u03ae\u03bc\u03b1 h\u00ecnh h\u00ednh gambar "
        "\u0634\u0643\u0644 \u05d0\u05d9\u05d5\u05e8",
    ),
    "picture": ("images? pictures? photos? photographs? foto screenshots? illustrations? illus plates? pl",),
    "map": ("maps? karten? cartes? mapas?",),
    "chart": ("charts? graphs? diagrams? schemes? diagramm",),
    "table": (
        "tables? tab tabellen? tabelle tableaux? tablas? tabelas? \u0442\u0430\u0431\u043b(?:\u0438\u0446\u0430)?",
    ),
    "listing": ("listings?",),
}
_UNSPACED = {
    "figure": "[\u56fe\u5716\u56f3]|\uadf8\ub9bc",
    "table": "\u8868|\ud45c",
    "picture": "\u5199\u771f|\u7167\u7247",
}
_NUMBER = r"(?:[A-Z]{1,2}[.-]?)?\d{1,4}(?:[.\-\u2010\u2011\u2013]\d{1,3}){0,3}(?:[a-h]\b)?|[IVX]{1,5}\b|[A-Z]\b"
_UNSPACED_NUMBER = r"\d{1,4}(?:[.\-\u2010\u2011\u2013]\d{1,3}){0,3}"
_WORD = "|".join(
    f"(?P<{kind}>{'|'.join(word for line in lines for word in line.split())})" for kind, lines in _WORDS.items()
)
_SIGN = "|".join(f"(?P<{kind}_>{signs})" for kind, signs in _UNSPACED.items())
_NAMED = rf"(?:\b(?i:{_WORD})\b\.?\s{{0,3}}(?:n[o\u00b0]\.?\s?|#)?(?P<number>{_NUMBER}))"
_UNSPACED_NAMED = rf"(?:(?:{_SIGN})\s{{0,3}}(?P<unspaced>{_UNSPACED_NUMBER}))"
_LABEL = re.compile(rf"{_NAMED}|{_UNSPACED_NAMED}")
# Behind the number a caption has a sign, a new sentence, or nothing; a sentence goes on ("Figure 3 shows").
_AS_CAPTION = re.compile(
    rf"[\[(\"\u201c]?(?:{_NAMED}|{_UNSPACED_NAMED})(?:\s{{0,3}}[.:)\]|\u3001\u3002\uff1a\uff0e\u2013\u2014\u2015-]"
    r"|\s+(?=[^\W\d_a-z\u00df-\u00f6\u00f8-\u00ff\u0430-\u044f\u03b1-\u03c9\u0e00-\u0e7f])|\s*\Z)"
)
_FURTHER = re.compile(
    r"\s?(?P<link>,\s?(?:and|und|et|y|e|og|och|en|\u0438)?|&|and|und|et|y|e|og|och|en|\u0438|to|bis|[-\u2013\u2014])"
    r"\s?(?P<number>(?:[A-Z]{1,2}[.-]?)?\d{1,4}(?:[.\-]\d{1,3}){0,3}[a-h]?)(?![\w.]*\d)"
)
_PLURAL = re.compile(r"(?:\w+s|\w+en)\b\.?\s*\d+\s?[-\u2010-\u2014]", re.IGNORECASE)
_RANGES = frozenset(("to", "bis", "-", "\u2013", "\u2014"))
_MOST_OF_A_RANGE = 20
_LOOKED_AT = 80  # characters of a caption in which its number stands
_PANEL = re.compile(r"(?<=\d)[a-h]\Z")


def caption_label(text: str) -> Label | None:
    """What a caption is called, None where the text does not begin as the caption of a numbered figure does."""
    match = _AS_CAPTION.match(text[:_LOOKED_AT].lstrip())
    return None if match is None else _label(match)


def referred(text: str) -> list[Label]:
    """Labels that a sentence names, in order; of a range ("Figs. 2-4") all up to twenty."""
    found: list[Label] = []
    for match in _LABEL.finditer(text):
        kind, number = _label(match)
        first, _, last = number.partition(".")
        if first.isdecimal() and last.isdecimal() and _PLURAL.match(match[0]):  # "Figs. 2-4"
            found += [(kind, str(i)) for i in range(int(first), int(last))][:_MOST_OF_A_RANGE]
            number = last
        found.append((kind, number))
        position = match.end()
        while further := _FURTHER.match(text, position):
            last = _normal(further["number"])
            if further["link"] in _RANGES and number.isdecimal() and last.isdecimal():
                found += [(kind, str(i)) for i in range(int(number) + 1, int(last))][:_MOST_OF_A_RANGE]
            found.append((kind, last))
            number, position = last, further.end()
    return found


def names(labels: list[Label], label: Label) -> bool:
    """Whether one of the labels is the figure's, or that of one of its panels ("Fig. 7b" of figure 7)."""
    return any(each == label or (each[0] == label[0] and _PANEL.sub("", each[1]) == label[1]) for each in labels)


def _label(match: re.Match[str]) -> Label:
    kind = next(kind for kind in _WORDS if match[kind] is not None or (kind in _UNSPACED and match[f"{kind}_"]))
    return kind, _normal(match["number"] or match["unspaced"])


def _normal(number: str) -> str:
    return re.sub("[-\u2010\u2011\u2013]", ".", number).strip(".").lower()
