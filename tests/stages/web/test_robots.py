"""robots.txt by RFC 9309: statuses, redirects, size, groups, and whose answer it is."""

from typing import Any

import pytest

from stages.web.client import fetch
from stages.web.fetched import Failure
from stages.web.politeness import HostMemory
from stages.web.robots import MAX_BYTES, rules_from_answer, rules_from_failure
from stages.web.settings import CrawlSettings
from tests.servers import Route, answer, hang_up, huge_page, in_turn, redirect, routes

SETTINGS = CrawlSettings(
    allow_private_networks=True,
    per_host_delay=0,
    per_host_concurrency=4,
    retries=1,
    retry_backoff=0.01,
    total_timeout=2,
    user_agent="Interloom/0.1 (+https://example.org/bot)",
    obey_ai_txt=False,
    obey_tdmrep=False,
)


def text(body: str) -> Route:
    return answer(200, body.encode(), "text/plain")


def fetch_page(robots: Route, *more: tuple[str, Route], path: str = "/page") -> tuple[dict[str, Any], list[str], str]:
    """(row of the page, paths asked for, site's URL) for a site with this robots.txt."""
    with routes({"/robots.txt": robots, path: answer(), **dict(more)}) as site:
        (table,) = fetch([site.url + path], SETTINGS, kind="page", max_bytes=1000, memory=HostMemory())
        return table.to_pylist()[0], site.paths(), site.url


@pytest.mark.parametrize("status", [400, 401, 403, 404, 410])
def test_an_unavailable_file_allows_everything(status: int) -> None:
    row, _, url = fetch_page(answer(status))
    assert row["status"] == "ok"
    assert row["consent"]["robots_allowed"] is True
    assert row["consent"]["robots_source"] == f"{url}/robots.txt {status}"


@pytest.mark.parametrize(("robots", "told"), [(answer(500), "500"), (answer(429), "429"), (hang_up, "connection")])
def test_an_unreachable_file_disallows_for_now(robots: Route, told: str) -> None:
    row, paths, url = fetch_page(robots)
    assert (row["status"], row["reason"], row["retryable"]) == ("refused", "robots", True)
    assert row["consent"]["robots_allowed"] is False
    assert row["consent"]["robots_source"] == f"{url}/robots.txt {told}"
    assert "/page" not in paths


def test_an_unreachable_file_is_asked_for_again_within_the_run() -> None:
    row, paths, _ = fetch_page(in_turn(answer(503), text("User-agent: *\nDisallow:")))
    assert row["status"] == "ok"
    assert paths == ["/robots.txt", "/robots.txt", "/page"]


def test_a_disallowed_page_is_not_asked_for() -> None:
    row, paths, url = fetch_page(text("User-agent: *\nDisallow: /page"))
    assert (row["status"], row["reason"], row["retryable"]) == ("refused", "robots", False)
    assert row["detail"] == f"{url}/robots.txt 200 disallows {url}/page"
    assert row["consent"]["robots_allowed"] is False
    assert paths == ["/robots.txt"]


@pytest.mark.parametrize(
    ("body", "allowed"),
    [
        ("User-agent: interloom\nDisallow: /page\n\nUser-agent: *\nAllow: /", False),
        ("User-agent: INTERLOOM\nAllow: /\n\nUser-agent: *\nDisallow: /", True),
        ("User-agent: otherbot\nDisallow: /", True),
        ("User-agent: otherbot\nUser-agent: interloom\nDisallow: /", False),
        ("User-agent: *\nDisallow: /\nAllow: /pag", True),  # the longest match wins
        ("User-agent: *\nDisallow: /page\nAllow: /page", True),  # and allow wins a draw
        ("User-agent: *\nDisallow: /*ge$", False),
        ("User-agent: *\nDisallow: /%70age", False),
        ("\ufeffUser-agent: *\nDisallow: /", False),
        ("<html><body>not found</body></html>", True),
        ("Disallow: /", True),  # in no group
        ("", True),
        ("User-agent: *\r\nDisallow: /\r\n# comment", False),
        ("User-agent: *\nDisallow: /\0", True),
    ],
)
def test_groups_and_rules(body: str, allowed: bool) -> None:
    rules = rules_from_answer("http://h", 200, body.encode())
    if "\0" in body:
        allowed = rules.allow("http://h/", "interloom")  # any reading will do, but it must be one
    assert rules.allow("http://h/page", SETTINGS.product) == allowed


def test_redirects_are_followed_five_times() -> None:
    hops = [(f"/r{i}", redirect(f"/r{i + 1}")) for i in range(1, 5)]
    row, paths, url = fetch_page(redirect("/r1"), *hops, ("/r5", text("User-agent: *\nDisallow: /")))
    assert row["reason"] == "robots"
    assert paths[:6] == ["/robots.txt", "/r1", "/r2", "/r3", "/r4", "/r5"]
    assert row["consent"]["robots_source"] == f"{url}/robots.txt 200"
    row, _, url = fetch_page(redirect("/robots.txt?again"))
    assert row["status"] == "ok"  # RFC 9309, 2.3.1.2: after five, as good as unavailable
    assert row["consent"]["robots_source"] == f"{url}/robots.txt 302"
    assert fetch_page(redirect("mailto:x"))[0]["status"] == "ok"


def test_only_the_first_500_kilobytes_count() -> None:
    lines = "User-agent: *\nDisallow: /page\n" + "# padding\n" * (MAX_BYTES // 10) + "Allow: /page\n"
    assert fetch_page(text(lines))[0]["reason"] == "robots"
    assert fetch_page(huge_page(50_000_000, announce=True))[0]["status"] == "ok"


@pytest.mark.parametrize("line_end", ["\n", "\r\n", "\r"])
@pytest.mark.parametrize(
    ("rules", "cut", "allowed"),
    [
        ("Disallow: /private/", len("vate/"), True),  # the rest, "Disallow: /pri", is a rule nobody wrote
        ("Disallow: /\nAllow: /private/", len("rivate/"), False),
        ("Disallow: /", 0, False),  # a file that ends just there, with its last line whole
    ],
)
def test_a_line_cut_at_the_limit_is_no_rule(rules: str, cut: int, allowed: bool, line_end: str) -> None:
    end = "User-agent: *\n".replace("\n", line_end) + rules.replace("\n", line_end) + line_end
    body = b"#".ljust(MAX_BYTES - len(end) + cut + len(line_end) * bool(cut), b"x")[: -len(line_end)]
    body += (line_end + end).encode()
    assert len(body) >= MAX_BYTES
    for given in (body, body[:MAX_BYTES]):
        assert rules_from_answer("http://h", 200, given).allow("http://h/pripage", SETTINGS.product) == allowed


def test_a_redirected_page_needs_leave_at_every_host() -> None:
    with (
        routes({"/robots.txt": text("User-agent: *\nDisallow: /to"), "/to": answer()}) as there,
        routes({"/from": redirect(there.url + "/to")}) as here,
    ):
        (table,) = fetch([here.url + "/from"], SETTINGS, kind="page", max_bytes=1000, memory=HostMemory())
        row = table.to_pylist()[0]
        assert row["reason"] == "robots"
        assert row["consent"]["robots_source"] == f"{there.url}/robots.txt 200"
        assert "/to" not in there.paths()


def test_robots_txt_itself_may_always_be_asked_for_and_is_asked_for_once() -> None:
    memory = HostMemory()
    with routes({"/robots.txt": text("User-agent: *\nDisallow: /x"), "/a": answer(), "/b": answer()}) as site:
        for _ in range(2):
            urls = [site.url + path for path in ("/a", "/b", "/x")]
            tables = list(fetch(urls, SETTINGS, kind="page", max_bytes=1000, memory=memory))
            assert sum(len(table) for table in tables) == 3
        assert site.paths().count("/robots.txt") == 1
        ignoring = SETTINGS.model_copy(update={"obey_robots": False})
        (table,) = fetch([site.url + "/x"], ignoring, kind="page", max_bytes=1000, memory=memory)
        assert table.to_pylist()[0]["http_status"] == 404  # asked for


def test_memory_expires() -> None:
    now = 0.0
    memory = HostMemory(clock=lambda: now)
    memory.keep_rules("http://h", "", rules_from_answer("http://h", 404, b""))
    memory.keep_rules("http://down", "", rules_from_failure("http://down", Failure("timeout", "", retryable=True)))
    assert memory.rules("http://h", "") and memory.rules("http://down", "")
    now = 3600.0
    assert memory.rules("http://h", "") is not None
    assert memory.rules("http://down", "") is None  # may have come back
    now = 86_401.0
    assert memory.rules("http://h", "") is None


@pytest.mark.parametrize(
    ("line", "delay"),
    [("Crawl-delay: 2.5", 2.5), ("Crawl-delay: -1", 0), ("Crawl-delay: soon", 0), ("Crawl-delay: inf", 0), ("", 0)],
)
def test_crawl_delay(line: str, delay: float) -> None:
    rules = rules_from_answer("http://h", 200, f"User-agent: *\n{line}\nDisallow:".encode())
    assert rules.crawl_delay("interloom") == delay
