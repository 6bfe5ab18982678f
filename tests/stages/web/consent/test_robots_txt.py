"""robots.txt: whose group holds, which of its lines decides, and that every file can be read."""

import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stages.web.consent.robots_txt import Group, RobotsTxt

SITE = "http://marsh.test"


def allowed(file: str | bytes, path: str, product: str = "heron") -> bool:
    rule = RobotsTxt(file if isinstance(file, bytes) else file.encode()).deciding(SITE + path, product)
    return rule is None or rule.allows


@pytest.mark.parametrize(
    "file",
    [
        "",
        "bird: heron\nkeep-off: /",
        "disallow: /",
        "user-agent: heron",
        "user-agent:\ndisallow: /",
        "user-agent: 鷺\ndisallow: /",
        "user-agent: heron\ndisallow:",
        "user-agent: heron\ndisallow: \nallow: ",
        "user-agent: heron\n# disallow: /",
        "user-agent: heron\ndisallow: #/",
        "user-agent: heron\ndisallow: /\nallow: /",
        "user-agent: stork\ndisallow: /\nuser-agent: crane\ndisallow: /",
        "user-agent: *\ndisallow: /\nuser-agent: heron\nallow: /elsewhere",
        "user-agent: *\ndisallow: /\nuser-agent: heron\n",
        b"\xef\x11\xbfuser-agent: heron\ndisallow: /",
        "<html><body>404</body></html>",
    ],
)
def test_files_that_forbid_nothing(file: str | bytes) -> None:
    assert allowed(file, "/nest/egg")


@pytest.mark.parametrize(
    "file",
    [
        "user-agent: heron\ndisallow: /",
        "USER-AGENT: HERON\nDISALLOW: /",
        " uSeR-aGeNt\t:\theron \n\tdIsAlLoW : / ",
        "user-agent heron\ndisallow /",
        "useragent: heron\ndissallow: /",
        "user agent: heron\ndisalow: /",
        "user-agent: heron/2.1\ndisallow: /",
        "user-agent: Heron Nests\ndisallow: /",
        "user-agent: heron*\ndisallow: /",
        "user-agent: * # everyone\ndisallow: / # everything",
        "user-agent: stork\nuser-agent: heron\nuser-agent: crane\ndisallow: /",
        "user-agent: heron\nuser-agent: heron\ndisallow: /",
        "user-agent: heron\n\n\ndisallow: /",
        "user-agent: heron\nallow: /a\nuser-agent: stork\nallow: /\nuser-agent: heron\ndisallow: /",
        "user-agent: *\nallow: /reeds\nuser-agent: *\ndisallow: /",
        "user-agent: heron\ndisallow: *",
        "user-agent: heron\ndisallow: n",
        "user-agent: heron\rdisallow: /",
        "user-agent: heron\r\n\r\ndisallow: /\r\n",
        "user-agent: heron\n\rdisallow: /",
        "\ufeffuser-agent: heron\ndisallow: /",
        b"\xef\xbbuser-agent: heron\ndisallow: /",
        "user-agent: heron\ndisa\0llow: /\0",
        "user-agent: heron\ndisallow: /".encode("utf-16"),
        b"user-agent: heron\n\xff\xfe: \xc3\x28\ndisallow: /",
        b"user-agent: heron\ndisallow: /\n" + b"\xf0\x28\x8c\x28",
    ],
)
def test_files_that_forbid_everything(file: str | bytes) -> None:
    assert not allowed(file, "/nest/egg")
    assert allowed(file, "/robots.txt")


@pytest.mark.parametrize("record", ["Crawl-delay: 10", "Sitemap: http://h/s.xml", "Content-Signal: a=no", "Foo: bar"])
def test_other_records_end_no_group(record: str) -> None:
    file = f"User-agent: heron\n{record}\nUser-agent: other\n{record}\nDisallow: /x\n{record}\nDisallow: /y"
    for product in ("heron", "other"):
        assert [allowed(file, path, product) for path in ("/x", "/y", "/z")] == [False, False, True]


def test_a_user_agent_after_a_rule_begins_a_group() -> None:
    file = """
allow: /ditch/

user-agent: Heron
disallow: /
allow: /pond/
user-agent: Stork
disallow: /
allow: /lake/


allow: /brook/
user-agent: Crane

user-agent: Heron
allow: /moor/
disallow: /
"""
    waters = ("pond", "lake", "brook", "moor", "ditch")
    told = {
        name: [water for water in waters if allowed(file, f"/{water}/1", name)]
        for name in ("heron", "stork", "crane", "gull")
    }
    assert told == {
        "heron": ["pond", "moor"],
        "stork": ["lake", "brook"],
        "crane": ["moor"],
        "gull": list(waters),
    }
    assert not allowed("user-agent: a\ndisallow:\nuser-agent: heron\ndisallow: /", "/")


def test_a_file_of_the_shape_of_the_rfcs_example() -> None:
    """RFC 9309, 5.1: everyone's rules, one crawler that may have two files, two in one group, one without a rule."""
    file = """
User-Agent: *
Disallow: *.tiff$
Disallow: /nests/
Allow: /leaflets/

User-Agent: Heron
Disallow: /
Allow: /nests/map.html
Allow: /nests/shown.tiff

User-Agent: Stork
User-Agent: Crane
Disallow: /nests/map.html

User-Agent: Egret
"""
    paths = ("/nests/map.html", "/nests/shown.tiff", "/nests/eggs", "/leaflets/1", "/leaflets/1.tiff", "/a")
    told = {
        name: "".join("+-"[not allowed(file, path, name)] for path in paths)
        for name in ("gull", "heron", "stork", "crane", "egret")
    }
    # "/leaflets/" has more octets than "*.tiff$"
    assert told == {"gull": "---+++", "heron": "++----", "stork": "-+++++", "crane": "-+++++", "egret": "++++++"}


@pytest.mark.parametrize(
    ("product", "group", "ours"),
    [
        ("interloom", "inter", False),
        ("inter", "interloom", False),
        ("interloom", "Interloom", True),
        ("interloom", "interloom/0.1", True),
        ("interloom", "interloom-images", False),
        ("interloom-images", "interloom", False),
        ("mybot-images", "MYBOT-Images/3 (http://x)", True),
        ("my_bot", "my_bot", True),
        ("bot", "bot2", False),
        ("heron", "HERON NESTS", True),
        ("heron nests", "heron nests", False),  # no product token: nobody is called that
    ],
)
def test_a_product_token_is_matched_whole(product: str, group: str, ours: bool) -> None:
    assert allowed(f"User-agent: {group}\nDisallow: /", "/", product) != ours
    assert allowed(f"User-agent: {group}\nAllow: /\n\nUser-agent: *\nDisallow: /", "/", product) == ours


@pytest.mark.parametrize(
    ("rules", "path", "expected"),
    [
        (["allow: /nest/", "disallow: /nest/egg.html"], "/nest/egg.html", False),  # as in RFC 9309, 5.2
        (["allow: /nest/egg.html", "disallow: /nest/"], "/nest/egg.html", True),
        (["allow: /nest/egg.html", "disallow: /nest/"], "/nest/", False),
        (["allow: /nest/egg.html", "disallow: /nest/egg.html"], "/nest/egg.html", True),
        (["disallow: /nest", "allow: /nest/"], "/nest", False),
        (["disallow: /nest", "allow: /nest/"], "/nest/", True),
        (["allow: /egg", "disallow: /*.html"], "/egg.html", False),
        (["allow: /egg", "disallow: /*.html"], "/egg", True),
        (["allow: /nest/egg.", "disallow: /*.html"], "/nest/egg.html", True),
        (["allow: /nest/egg.", "disallow: /*.html"], "/nest/e.html", False),
        (["allow: /n", "disallow: /"], "/nest", True),
        (["allow: /nest", "disallow: /nest"], "/nest/egg", True),
        (["allow: /egg", "disallow: /*.htm"], "/egg.htm", False),
        (["allow: /$", "disallow: /"], "/", True),
        (["allow: /$", "disallow: /"], "/egg.html", False),
        (["disallow: /", "allow: /map?of=reed&to=http://h?pond&moor"], "/map?of=reed&to=http://h?pond&moor", True),
        (["disallow: /%E9%B7%BA", "allow: /鷺"], "/%E9%B7%BA", True),
        (["disallow: /", "allow: /%E9%B7%BA"], "/%e9%b7%ba", True),
        (["disallow: /", "allow: /%6Eest"], "/nest", True),  # RFC 9309, 2.2.2, where Google's parser does not
        (["disallow: /", "allow: x"], "/x", False),
        (["disallow: /Nest/"], "/nest/egg", True),
        (["disallow: /nest/egg#2", "allow: /"], "/nest/egg", False),
        (["disallow: /nest/egg$", "allow: /nest/egg/shell"], "/nest/egg", False),
        (["disallow: /nest/egg$", "allow: /nest/egg/shell"], "/nest/egg/yolk", True),
        (["disallow: /nest/egg", "allow: /nest/*/shell"], "/nest/egg", False),
        (["disallow: /nest/egg", "allow: /nest/*/shell"], "/nest//egg", True),
        (["disallow: /", "allow: /nest/index.html"], "/nest/", False),  # a file is no folder
        (["disallow: /" + "a" * 20_000 + "b"], "/" + "a" * 20_000 + "c", True),  # a long line is read to its end
    ],
)
def test_the_most_specific_rule_decides(rules: list[str], path: str, expected: bool) -> None:
    for lines in (rules, rules[::-1]):
        assert allowed("\n".join(["user-agent: heron", *lines]), path) == expected


def test_latin_1_paths_are_their_octets() -> None:
    assert not allowed("user-agent: *\ndisallow: /caf\xe9".encode("latin-1"), "/caf%E9")
    assert allowed("user-agent: *\ndisallow: /caf\xe9", "/caf%E9")


def test_the_line_that_decided_can_be_told() -> None:
    robots = RobotsTxt(b"User-agent: *\nDisallow: /a/*.html$\nAllow: /a/b")
    told = [robots.deciding(SITE + path, "heron") for path in ("/a/x.html", "/a/b", "/c")]
    assert [rule and rule.line for rule in told] == ["Disallow: /a/*.html$", "Allow: /a/b", None]


@pytest.mark.parametrize(
    ("file", "delay"),
    [
        ("user-agent: heron\ncrawl-delay: 2.5", 2.5),
        ("user-agent: heron\ncrawl-delay: 1\nuser-agent: stork\nuser-agent: heron\ncrawl-delay: 3", 3),
        ("user-agent: *\ncrawl-delay: 7\nallow: /\nuser-agent: heron\nallow: /", 0),
        ("user-agent: *\ncrawl-delay: 7\n\nuser-agent: heron\nallow: /", 7),  # one group: no rule ended the first
        ("crawl-delay: 7\nuser-agent: heron", 0),
        *((f"user-agent: heron\ncrawl-delay: {value}", 0) for value in ("-1", "soon", "inf", "nan", "1e999", "")),
    ],
)
def test_crawl_delay_is_the_groups(file: str, delay: float) -> None:
    assert RobotsTxt(file.encode()).group("heron").crawl_delay == delay


def test_licence_terms_are_the_files() -> None:
    file = b"License: https://h/rsl.xml\nuser-agent: a\nLICENSE: http://h/b\nlicense: /relative\nlicense: https://h/rsl.xml"
    assert RobotsTxt(file).licenses == ("https://h/rsl.xml", "http://h/b")


@pytest.mark.slow
def test_a_hostile_file_is_read_in_seconds() -> None:
    size = 500 * 1024
    files = [
        b"".join(b"user-agent: a%d\n" % number for number in range(13_000)) + b"disallow: /*a\n" * 19_000,
        b"user-agent: *\n" + b"".join(b"disallow:/*%d\n" % number for number in range(30_000)),
        b"user-agent: *\ndisallow: " + b"*a" * (size // 2 - 20),
        b"user-agent: *\r" * (size // 14),
        b"user-agent: *\n" + b"".join(b"disallow: /*aaaaaa%05d\n" % number for number in range(21_000)),
    ]
    start = time.process_time()
    for file in files:
        assert len(file) <= size
        robots = RobotsTxt(file)
        for letter in "ab":
            robots.deciding(f"{SITE}/{letter * 8000}", "heron")
            robots.group(f"a{letter}")
    assert time.process_time() - start < 10


@settings(derandomize=True, deadline=None, max_examples=200)
@given(
    st.lists(st.sampled_from([b"user-agent", b"disallow", b"allow", b":", b"*", b"/", b"\n", b"\r", b"\xff", b"\0"]))
)
def test_any_octets_are_a_file(parts: list[bytes]) -> None:
    robots = RobotsTxt(b" ".join(parts))
    assert isinstance(robots.group("heron"), Group)
    rule = robots.deciding(SITE + "/x", "heron")
    assert rule is None or rule.pattern.text
