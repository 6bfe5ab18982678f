"""X-Robots-Tag and the robots meta tag: what a response or a page says about its own use.

Sources: Google's robots meta tag specification, the only written one, and for `noai` and `noimageai` DeviantArt's, who
made them. Directives stand between commas, blanks or both, as both are written; user agents are product tokens, with or
without a version (RFC 9110, 10.1.5).
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Iterator
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime

# One item and the colon behind it, if any; what separates items goes before.
_ITEM = re.compile(r"[\s,;:]*([^\s,;:]+)[ \t]*(:?)[ \t]*")
_WORD = re.compile(r"[^\s,;]*")
_PRODUCT = re.compile(r"\*|[!#$%&'*+.^_`|~0-9a-z-]+")
UNAVAILABLE_AFTER = "unavailable_after"
# Directives that carry a value after a colon; any other word before a colon names a user agent.
_VALUED = frozenset({"max-snippet", "max-image-preview", "max-video-preview", "notranslate"})
# RFC 822 and 850, what C's asctime writes, and ISO 8601: what unavailable_after may be followed by.
_DATES = (
    re.compile(
        r"(?:[a-z]{3,9},?\s+)?\d{1,2}[\s-][a-z]{3,9}[\s-]\d{2,4}(?:\s+\d{1,2}:\d\d(?::\d\d)?)?"
        r"(?:\s*[+-]\d{4}|\s+(?:utc?|gmt|z|[ecmp][sd]t)\b)?"
    ),
    re.compile(r"[a-z]{3}\s+[a-z]{3}\s+\d{1,2}\s+\d\d:\d\d:\d\d\s+\d{4}"),
    re.compile(r"\d{4}-\d\d-\d\d(?:[t ]\d\d:\d\d(?::\d\d(?:\.\d+)?)?\s*(?:z|[+-]\d\d:?\d\d)?)?"),
)
_DASHED = re.compile(r"(\d+)-([a-z]+)-(\d+)")


def directives(lines: Iterable[str], product: str, now: datetime | None = None) -> frozenset[str]:
    """Directives, lower case, that address everyone or the given product token.

    `lines`: the X-Robots-Tag lines of one response, or the tags of one page (stages.extract.head). A line may start
    with a user agent ("otherbot: noindex, nofollow"), which then holds to the end of the line or the next user agent in
    it. `unavailable_after` is among them once its date has passed; a text that is no date says nothing. `now`: the
    present, in place of the clock's.
    """
    ours = ("*", product.lower())
    return frozenset(
        name
        for line in lines
        for agent, name, date in _items(line.lower())
        if agent in ours and (name != UNAVAILABLE_AFTER or _is_past(date, now))
    )


def refusal(lines: Iterable[str], product: str, refused: Collection[str], now: datetime | None = None) -> str | None:
    """The first refused directive, in alphabetical order, that holds for us, or null."""
    return min(directives(lines, product, now) & {name.lower() for name in refused}, default=None)


def words(text: str) -> list[str]:
    """The directives of one line, lower case, whoever they address, without values."""
    return [name for _, name, _ in _items(text.lower())]


def _items(line: str) -> Iterator[tuple[str, str, str]]:
    """(user agent, directive, the date of one that has it) of a line in lower case."""
    agent, at = "*", 0
    while (item := _ITEM.match(line, at)) is not None:
        name, colon = item.groups()
        at = item.end()
        if not colon:
            yield agent, name, ""
        elif name == UNAVAILABLE_AFTER:
            date = next((found for each in _DATES if (found := each.match(line, at))), None) or _WORD.match(line, at)
            assert date is not None  # a word may be empty
            at = date.end()
            yield agent, name, date[0]
        elif name in _VALUED:
            value = _WORD.match(line, at)
            assert value is not None
            at = value.end()
            yield agent, name, ""
        elif (named := name.partition("/")[0]) and _PRODUCT.fullmatch(named):
            agent = named


def _is_past(text: str, now: datetime | None) -> bool:
    date = _date(text)
    return date is not None and date < (now or datetime.now(UTC))


def _date(text: str) -> datetime | None:
    """A date in UTC; of a day alone its end, as it may be meant anywhere."""
    whole = text if ":" in text else f"{text} 23:59:59"
    try:
        if text[4:5] == "-":
            date = datetime.fromisoformat(whole.upper())
        else:
            date = parsedate_to_datetime(_DASHED.sub(r"\1 \2 \3", whole))
        return date.replace(tzinfo=UTC) if date.tzinfo is None else date.astimezone(UTC)
    except (ValueError, TypeError, OverflowError, IndexError):
        return None
