"""Which signals a fetch kept to, remembered with its row: what was had by keeping to fewer holds for no other."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from stages.web.settings import CrawlSettings

_OBEYED = ("obey_ai_txt", "obey_tdmrep", "obey_rsl")
_USES = "content_signals"


def consent_policy(settings: CrawlSettings) -> dict[str, Any]:
    """The part of a fetch's policy that is about signals, as JSON values."""
    return {**{name: getattr(settings, name) for name in _OBEYED}, _USES: sorted(settings.content_signals)}


def consents(asked: Mapping[str, Any], made: Mapping[str, Any]) -> bool:
    """Whether what was fetched under the policy `made` kept to every signal that `asked` keeps to.

    Releases that knew of none of them did not say so in their policies.
    """
    obeyed = all(asked[name] <= made.get(name, False) for name in _OBEYED)
    return obeyed and set(asked[_USES]) <= set(made.get(_USES, ()))
