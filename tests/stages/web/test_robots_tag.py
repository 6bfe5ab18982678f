"""X-Robots-Tag lines: whom they address and what they say."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stages.web.robots_tag import directives, refusal
from stages.web.settings import CrawlSettings


@pytest.mark.parametrize(
    ("lines", "found"),
    [
        (["noindex"], {"noindex"}),
        (["NoIndex ,  NOFOLLOW"], {"noindex", "nofollow"}),
        (["otherbot: noindex, nofollow"], set()),
        (["otherbot: noindex", "noai"], {"noai"}),
        (["Interloom: noai, noimageai"], {"noai", "noimageai"}),
        (["interloom/1.0: noai"], {"noai"}),
        (["*: noindex"], {"noindex"}),
        (["otherbot: noindex, interloom: nofollow, noarchive"], {"nofollow", "noarchive"}),
        (["unavailable_after: Wed, 25 Jun 2031 15:00:00 GMT, noindex"], {"noindex"}),
        (["max-snippet: 20, max-image-preview:large, noai"], {"noai"}),
        ([""], set()),
        ([], set()),
    ],
)
def test_lines(lines: list[str], found: set[str]) -> None:
    known = {"noindex", "nofollow", "noai", "noimageai", "noarchive"}
    assert directives(lines, "interloom") & known == found


def test_refusal_names_one_directive_whatever_their_order() -> None:
    refused = CrawlSettings().image_directives
    assert (
        refusal(["noindex, noai"], "interloom", refused) == refusal(["noai", "noindex"], "interloom", refused) == "noai"
    )
    assert refusal(["nofollow"], "interloom", refused) is None
    assert refusal(["noimageindex"], "interloom", CrawlSettings().page_directives) is None


@settings(derandomize=True, deadline=None, max_examples=100)
@given(st.lists(st.text(max_size=40), max_size=4))
def test_any_header_can_be_read(lines: list[str]) -> None:
    assert all(name == name.lower() for name in directives(lines, "interloom"))
