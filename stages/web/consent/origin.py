"""What an origin as a whole says: robots.txt, ai.txt and tdmrep.json, as one verdict about a URL."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from stages.web.consent import ai_txt, tdmrep
from stages.web.consent.content_signals import refusing
from stages.web.consent.patterns import path_of
from stages.web.consent.robots_txt import RobotsTxt
from stages.web.consent.signals import Signal
from stages.web.fetched import Failure
from stages.web.robots import MAX_BYTES, Rules, rules_from_answer
from stages.web.settings import CrawlSettings

# Lines of one origin that are kept with each of its rows.
_MOST_SIGNALS = 20
# Seconds after which a file that could not be had is asked for again.
_SOON = 600.0


@dataclass(frozen=True)
class Verdict:
    """Whether a URL may be fetched, and what decided."""

    allowed: bool
    source: str
    """The file that decided and how it was answered: "http://h/robots.txt 200"."""
    by: Signal | None = None
    """The line that decided; None where none speaks of the URL, and where nobody could say."""
    for_now: bool = False
    """The files could not be had: to be asked again."""
    robots_allowed: bool = True
    """What robots.txt alone says."""
    signals: tuple[Signal, ...] = ()
    """What else the files say of the URL, whether or not it is obeyed."""

    def failure(self, url: str) -> Failure:
        """Of a verdict that does not allow the URL: the row's reason."""
        if self.for_now:
            detail = f"{self.source}: nobody could say"
        else:
            line = "" if self.by is None or self.by.signal == "robots" else f" ({self.by.said})"
            detail = f"{self.source} disallows {url}{line}"
        reason = "robots" if self.by is None else self.by.signal
        return Failure(reason, detail, status="refused", retryable=self.for_now, final=True)


@dataclass(frozen=True)
class Asked:
    """A file of an origin as it was answered."""

    http_status: int
    body: bytes


@dataclass(frozen=True)
class OriginRules:
    """The files of an origin, and which of them are obeyed."""

    origin: str
    robots: Rules
    ai: RobotsTxt | None = None
    """None where there is no ai.txt, or it was not asked for."""
    reserved: tuple[tdmrep.Location, ...] = ()
    content_signals: tuple[str, ...] = ()
    """The uses whose refusal is obeyed."""
    obey_rsl: bool = False
    may_change: bool = False
    """A file beside robots.txt could not be had: what it says is not known yet."""

    @property
    def lifetime(self) -> float:
        """Seconds for which the rules may be used again."""
        return min(self.robots.lifetime, _SOON) if self.may_change else self.robots.lifetime

    @property
    def host_failure(self) -> Failure | None:
        """Set when the host cannot be talked to at all."""
        return self.robots.host_failure

    def allow(self, url: str, kind: Literal["page", "image"], product: str) -> Verdict:
        """The verdict about a canonical URL of this origin.

        robots.txt comes first: what may not be fetched is not fetched, whatever it may be used for. Then, each of them
        able to forbid alone, ai.txt, tdmrep.json, the preferences in robots.txt, and its licence terms.
        """
        robots = self.robots
        rule = robots.deciding(url, product)
        if not (robots.reachable if rule is None else rule.allows):
            by = None if rule is None else Signal("robots", rule.line)
            return Verdict(False, robots.source, by, for_now=not robots.reachable, robots_allowed=False)
        signals: list[Signal] = []
        refused: list[tuple[str, Signal]] = []
        if self.ai is not None:
            said = ai_txt.deciding(self.ai, url, kind, product)
            if said is not None:
                signals.append(Signal("ai_txt", said.line))
                if not said.allows:
                    refused.append((f"{self.origin}{ai_txt.PATH} 200", signals[-1]))
        location = tdmrep.location_of(self.reserved, url)
        if location is not None:
            signals.append(Signal("tdmrep", location.line))
            if location.reserved:
                refused.append((f"{self.origin}{tdmrep.WELL_KNOWN} 200", signals[-1]))
        if robots.groups is not None:
            preferences = robots.groups.group(product).preferences
            signals += [Signal("content_signal", each.line) for each in preferences]
            no = refusing(preferences, path_of(url), self.content_signals)
            if no is not None:
                refused.append((robots.source, Signal("content_signal", no.line)))
            terms = [Signal("rsl", f"License: {license}") for license in robots.groups.licenses]
            signals += terms
            if terms and self.obey_rsl:
                refused.append((robots.source, terms[0]))
        kept = tuple(signals[:_MOST_SIGNALS])
        if refused:
            source, by = refused[0]
            return Verdict(False, source, by, signals=kept)
        return Verdict(True, robots.source, None if rule is None else Signal("robots", rule.line), signals=kept)


def origin_files(robots: Rules, origin: str, settings: CrawlSettings) -> list[str]:
    """URLs of the files to be asked for beside robots.txt: those that are obeyed and that it does not close."""
    wanted = [
        f"{origin}{path}"
        for path, obeyed in ((ai_txt.PATH, settings.obey_ai_txt), (tdmrep.WELL_KNOWN, settings.obey_tdmrep))
        if obeyed
    ]
    return [url for url in wanted if robots.reachable and robots.allow(url, settings.product)]


def origin_rules(robots: Rules, origin: str, answers: dict[str, Asked | None], settings: CrawlSettings) -> OriginRules:
    """The rules of an origin. `answers`: of `origin_files` by URL, after redirects; None for one that did not come.

    2xx is the file, of which what lies beyond the cap of robots.txt is not read; any other answer is none.
    """
    found = {
        url: answer.body for url, answer in answers.items() if answer is not None and 200 <= answer.http_status < 300
    }
    ai = found.get(f"{origin}{ai_txt.PATH}")
    reservations = found.get(f"{origin}{tdmrep.WELL_KNOWN}")
    return OriginRules(
        origin,
        robots,
        ai=None if ai is None else RobotsTxt(ai[:MAX_BYTES]),
        reserved=() if reservations is None else tdmrep.read_locations(reservations, MAX_BYTES),
        content_signals=settings.content_signals,
        obey_rsl=settings.obey_rsl,
        may_change=any(
            answer is None or answer.http_status >= 500 or answer.http_status == 429 for answer in answers.values()
        ),
    )


@dataclass(frozen=True)
class OriginAnswers:
    """How an origin answered when it was asked for its files: what its rules are made of, as long as they hold."""

    asked: float
    """Seconds since 1970, of the first of them."""
    robots: Asked
    beside: dict[str, Asked]
    """By URL."""

    def rules(self, origin: str, settings: CrawlSettings) -> OriginRules:
        """The rules that follow."""
        found = rules_from_answer(origin, self.robots.http_status, self.robots.body)
        answers: dict[str, Asked | None] = {**self.beside}
        return origin_rules(found, origin, answers, settings)


def rules_variant(settings: CrawlSettings) -> str:
    """What of the settings shapes the rules of an origin: rules of another variant are no use."""
    asked = (settings.user_agent, settings.allow_private_networks, settings.obey_ai_txt, settings.obey_tdmrep)
    return repr((*asked, settings.content_signals, settings.obey_rsl))
