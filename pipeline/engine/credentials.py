"""Credentials in URLs: refused where a spec names a URL, since specs are published, and masked where one is said."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import parse_qsl

from pipeline.engine.mistake import UserMistake

# user:password@ before a host; a scheme without ports may have slashes in its password, as AWS makes them.
_WEB = re.compile(r"(?i)\bhttps?:/+[^/?#\s]*@")
_PASSWORD = re.compile(r"(?i)\b(?!https?:)[a-z][a-z0-9+.-]*://[^\s@:/?#]*:[^\s@]*@")
_MASKED = re.compile(r"(?i)(\b[a-z][a-z0-9+.-]*:/+)[^\s@:/?#]*:[^\s@/]*@")
# Query parameters that let in whoever shows them: sessions and keys, and what Amazon, Google and Azure sign URLs with.
_SECRET_PARAMETERS = re.compile(
    r"(?i)((access|auth|id|private|refresh|session)_?)?token|access_key|awsaccesskeyid|api[-_]?key|auth(orization)?"
    r"|bearer|jwt|passw(or)?d|pwd|(client_)?secret|sig(nature)?|x-(amz|goog)-(credential|security-token|signature)"
)


def carried(url: str) -> str | None:
    """What lets somebody in that a URL carries, in words and without its value; None when it carries nothing."""
    text = re.sub(r"[\t\r\n]", "", url).replace("\\", "/")
    if _WEB.search(text) or _PASSWORD.search(text):
        return "a user or password before its host"
    query = text.partition("?")[2].partition("#")[0]
    names = sorted({name for name, _ in parse_qsl(query, keep_blank_values=True) if _SECRET_PARAMETERS.fullmatch(name)})
    return f"a secret in its parameter {names[0]}" if names else None


def refuse_credentials(field: str, url: str) -> None:
    """UserMistake when a URL carries what must not be published; the message does not show it."""
    if what := carried(url):
        raise UserMistake(
            f"{field}: the URL carries {what}, and a spec is published with its corpus: leave it out (storage takes "
            "credentials from the environment, pages are fetched without any)"
        )


def refuse_in_list(field: str, path: str) -> None:
    """UserMistake naming the first line of a URL list that carries a user or password."""
    for number, line in enumerate(_lines(path), start=1):
        if _WEB.search(line.replace("\\", "/")):
            raise UserMistake(
                f"{field}: {path}:{number}: the URL carries a user or password before its host: leave it out, pages "
                "are fetched without any"
            )


def _lines(path: str) -> Iterator[str]:
    with Path(path).open(encoding="utf-8", errors="replace") as file:
        yield from file


def masked(text: str) -> str:
    """A message without the passwords of URLs in it."""
    return _MASKED.sub(r"\1***@", text)
