"""TDMRep: whether the rights to text and data mining are reserved, in a file, in headers or in meta tags of a page.

Source: TDM Reservation Protocol, W3C Community Group Final Report (https://www.w3.org/community/reports/tdmrep/).
By its rules headers overrule the file, and meta tags both. Here a reservation by any of them stands: what the file
reserves is not asked for, so there is nothing that could overrule it.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

from stages.web.consent.patterns import Pattern, path_of

WELL_KNOWN = "/.well-known/tdmrep.json"
RESERVATION, POLICY = "tdm-reservation", "tdm-policy"


@dataclass(frozen=True, slots=True)
class Location:
    """One rule of the file."""

    pattern: Pattern
    reserved: bool
    policy: str | None

    @property
    def line(self) -> str:
        """As a line: "/essays/ tdm-reservation: 1, tdm-policy: https://h/policy.json"."""
        policy = "" if self.policy is None else f", {POLICY}: {self.policy}"
        return f"{self.pattern.text.decode('utf-8', 'replace')} {RESERVATION}: {int(self.reserved)}{policy}"


def is_reserved(value: Any) -> bool:
    """Whether a value of tdm-reservation is the one that reserves: 1, or what is plainly meant for it."""
    return value is True or str(value).strip() == "1"


def read_locations(body: bytes, most: int) -> tuple[Location, ...]:
    """The rules of a tdmrep.json, in their order; what is no rule says nothing, whatever the octets.

    `most`: bytes that are read at most; of a longer file the rules that are whole by then.
    """
    if len(body) >= most:
        body = body[: body.rfind(b"}", 0, most) + 1] + b"]"
    try:
        found = json.loads(body)
    except (ValueError, RecursionError):
        return ()
    rules = []
    for each in found if isinstance(found, list) else [found]:
        if isinstance(each, dict) and isinstance(each.get("location"), str) and RESERVATION in each:
            policy = each.get(POLICY)
            location = each["location"].encode("utf-8", "surrogatepass")
            rules.append(
                Location(
                    Pattern.of(location if location.startswith((b"/", b"*")) else b"/" + location),
                    is_reserved(each[RESERVATION]),
                    policy if isinstance(policy, str) else None,
                )
            )
    return tuple(rules)


def location_of(rules: tuple[Location, ...], url: str) -> Location | None:
    """The rule that speaks of a canonical URL: the first that matches it."""
    path = path_of(url)
    return next((rule for rule in rules if rule.pattern.matches(path)), None)
