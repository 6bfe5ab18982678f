"""Canonical URLs: browsers' reading of hosts, RFC 3986 paths, and nothing but ValueError for the rest."""

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stages.web.urls import (
    _PLAIN,
    MAX_URL_LENGTH,
    _is_plain,
    canonicalize,
    canonicalize_image,
    host_of,
    origin_of,
    read_url_list,
    url_id,
)


@pytest.mark.parametrize(
    ("url", "canonical"),
    [
        ("HTTP://User:pw@EXAMPLE.com:80/a/../b/./c//d?b=2&a=1#f", "http://example.com/b/c//d?b=2&a=1"),
        ("https://example.com:443", "https://example.com/"),
        ("https://example.com:80/", "https://example.com:80/"),
        ("http://example.com.?x=1", "http://example.com/?x=1"),
        ("http://münchen.de/ü?q=ü", "http://xn--mnchen-3ya.de/%C3%BC?q=%C3%BC"),
        ("http://faß.de/", "http://xn--fa-hia.de/"),
        ("http://example.com/%7euser/%2f%zz", "http://example.com/~user/%2F%zz"),
        ("http://example.com/a b?c d", "http://example.com/a%20b?c%20d"),
        ("http://example.com/a/%2e%2e/b/.", "http://example.com/b/"),
        (" \thttp://example.com/a\nb ", "http://example.com/ab"),
        ("http://example.com\\@evil.com/", "http://example.com/@evil.com/"),
        ("http://example.com/?", "http://example.com/"),
        ("http:///x", "http://x/"),  # any number of slashes, in the standard
        ("http:/x\\y", "http://x/y"),
        ("http://h/%4a%%41a%4%31%%34%31%%%41", "http://h/J%%41a%4%31%%341%%%41"),  # no new escape comes of an old one
        ("http://h/a|b'c\"{}`^?'\"<>|^\\", "http://h/a|b'c%22%7B%7D%60%5E?%27%22%3C%3E|^\\"),
        # one address, many spellings
        ("http://2130706433/", "http://127.0.0.1/"),
        ("http://0x7f.1/", "http://127.0.0.1/"),
        ("http://0177.0.0.1/", "http://127.0.0.1/"),
        ("http://%31%32%37.0.0.1/", "http://127.0.0.1/"),
        ("http://１２７。0.0.1/", "http://127.0.0.1/"),
        ("http://[::FFFF:127.0.0.1]/", "http://[::ffff:7f00:1]/"),
        ("http://[0:0::1]:8080/", "http://[::1]:8080/"),
    ],
)
def test_canonical_form(url: str, canonical: str) -> None:
    assert canonicalize(url) == canonical


@pytest.mark.parametrize(
    ("url", "canonical"),
    [
        ("x", "http://h/d/e/x"),
        ("/x", "http://h/x"),
        ("?q", "http://h/d/e/f.html?q"),
        ("#f", "http://h/d/e/f.html?z"),
        ("", "http://h/d/e/f.html?z"),
        ("//other/y", "http://other/y"),
        ("\\\\other\\y", "http://other/y"),
        ("../../../x", "http://h/x"),
        ("./a:b", "http://h/d/e/a:b"),
    ],
)
def test_relative_urls(url: str, canonical: str) -> None:
    assert canonicalize(url, "http://h/d/e/f.html?z") == canonical


@pytest.mark.parametrize(
    "url",
    [
        "",
        "nonsense",
        "//example.com/x",
        "ftp://example.com/",
        "javascript:alert(1)",
        "data:image/png;base64,AAAA",
        "http://",
        "http://a b/",
        "http://a..b/",
        "http://exa<mple.com/",
        "http://example.com:99999/",
        "http://example.com:abc/",
        "http://[::1",
        "http://[fe80::1%25eth0]/",
        "http://999.1/",
        "http://1.2.3.4.5/",
        "http://09.1/",
        "http://" + "a" * 64 + ".com/",
        "http://example.com/\ud800",
        "http://example.com/" + "a" * MAX_URL_LENGTH,
        "http://example.com/" + "é" * (MAX_URL_LENGTH // 6),  # within the limit until it is escaped
        "http://example.com/?" + " " * (MAX_URL_LENGTH // 3) + "x",
        "x y" * (MAX_URL_LENGTH // 5),
        "http://" + "a." * 127 + "com/",
    ],
)
def test_what_is_no_url_is_one_clear_line(url: str) -> None:
    with pytest.raises(ValueError, match=r"URL|host|address|IPv") as error:
        canonicalize(url)
    assert len(str(error.value).splitlines()) == 1
    assert len(str(error.value)) < 400


def test_parameters_are_dropped_by_name_and_the_rest_keeps_its_order() -> None:
    url = "http://h/?b=1&UTM_Source=x&a=&utm_medium=y&fbclid=z&b=0&id=utm_x"
    assert canonicalize(url, drop_parameters=("utm_*", "fbclid")) == "http://h/?b=1&a=&b=0&id=utm_x"
    assert canonicalize("http://h/?utm_a=1", drop_parameters=("utm_*",)) == "http://h/"
    assert canonicalize("http://h/?utm_a=1") == "http://h/?utm_a=1"


def test_parameters_of_the_path_are_dropped_too() -> None:
    url = "http://h/sid/a;JSESSIONID=1F;v=2/b;jsessionid=3?sid=4&q=5"
    assert canonicalize(url, drop_parameters=("jsessionid", "sid")) == "http://h/sid/a;v=2/b?q=5"
    assert canonicalize(url) == url


# Text as pages have it: anything, what looks like a URL, and a great many escapes, whole and broken.
ANY_URL = st.one_of(
    st.text(max_size=60),
    st.binary(max_size=60).map(lambda noise: noise.decode("utf-8", "surrogateescape")),
    st.builds("http://{}/{}?{}".format, st.text(max_size=20), st.text(max_size=30), st.text(max_size=20)),
    st.builds("http://h/{}?{}".format, st.text("%4123aAé/.\\ #?", max_size=40), st.text("%4123aAé&='", max_size=40)),
    st.builds("{}{}".format, st.sampled_from(["http://h/", "", "//", "?", "https:"]), st.text("%é a", min_size=2000)),
    st.from_regex(r"https?://[a-z0-9.\-]{1,20}(:[0-9]{0,5})?/[a-z./%0-9~]{0,30}(\?[a-z=&%+]{0,20})?", fullmatch=True),
    st.builds("http://u:secret@h/{}".format, st.text(max_size=20)),
)


@pytest.mark.slow
@settings(derandomize=True, deadline=None, max_examples=500)
@given(ANY_URL, st.sampled_from([None, "http://h/d/e?f"]), st.sampled_from(["utf-8", "gb18030", "windows-1252"]))
def test_the_form_is_final_and_all_else_is_a_value_error(url: str, base: str | None, encoding: str) -> None:
    try:
        once = canonicalize(url, base, encoding=encoding, drop_parameters=("a*",))
    except ValueError as error:
        assert len(str(error).splitlines()) == 1
        return
    assert canonicalize(once) == once == canonicalize(once, base)
    assert once.isascii() and once.isprintable() and len(once) <= MAX_URL_LENGTH
    assert "#" not in once and "@" not in host_of(once) and " " not in once
    assert host_of(once) and origin_of(once) + once.removeprefix(origin_of(once)) == once


@pytest.mark.slow
@given(st.from_regex(_PLAIN, fullmatch=True).filter(_is_plain))
def test_what_is_taken_for_canonical_at_sight_is(url: str) -> None:
    """A parameter to drop, which none of them has, makes it be taken apart."""
    assert canonicalize(url) == url == canonicalize(url, drop_parameters=["\0"])


@pytest.mark.parametrize("end", ["a/../b", "./", "..", "%41", "a#b", "a b", "a'b", "é", "?", "?'"])
def test_what_needs_work_is_not_taken_at_sight(end: str) -> None:
    assert not _is_plain(f"http://site.test/{end}")
    assert not _is_plain(f"http://xn--mnchen-3ya.de/{end}") and not _is_plain(f"http://127.0.0.1/{end}")


def test_a_url_that_grows_past_the_limit_is_none() -> None:
    fits = "http://h/" + "é" * ((MAX_URL_LENGTH - 9) // 6)
    assert len(canonicalize(fits)) <= MAX_URL_LENGTH
    with pytest.raises(ValueError, match="when escaped"):
        canonicalize(fits + "é")
    with pytest.raises(ValueError, match="when escaped"):
        canonicalize("é", "http://h/" + "a" * (MAX_URL_LENGTH - 11) + "/")


@pytest.mark.parametrize(
    ("url", "encoding", "canonical"),
    [
        ("3.asp?Dh=\u6d2a17#\u6d2a", "gb18030", "http://h/3.asp?Dh=%BA%E917"),
        ("\u6d2a?\u6d2a", "gb18030", "http://h/%E6%B4%AA?%BA%E9"),  # the path is in UTF-8 always
        ("?q=\u0444&r=a b", "windows-1251", "http://h/?q=%F4&r=a%20b"),
        ("?q=\u0444é", "windows-1252", "http://h/?q=%26%231092%3B%E9"),  # as browsers write what the codec lacks
        ("?q=é", "utf-16-le", "http://h/?q=%C3%A9"),
        ("#?é", "windows-1252", "http://h/"),
    ],
)
def test_queries_are_escaped_in_the_encoding_of_their_page(url: str, encoding: str, canonical: str) -> None:
    assert canonicalize(url, "http://h/", encoding=encoding) == canonical


def test_hosts_and_origins() -> None:
    assert host_of("https://example.org/a") == host_of("http://example.org/b") == "example.org"
    assert host_of("http://127.0.0.1:8080/") == "127.0.0.1:8080"
    assert origin_of("https://example.org/a?b") == "https://example.org"


def test_ids_are_xxh3_128_hex_and_differ() -> None:
    ids = {url_id(url) for url in ("http://h/", "http://h/a", "data:image/png;base64,AAAA")}
    assert len(ids) == 3
    assert all(len(each) == 32 and int(each, 16) >= 0 for each in ids)


def test_data_uris_pass_for_images_only() -> None:
    assert canonicalize_image(" data:image/png;base64,AA== ") == "data:image/png;base64,AA=="
    assert canonicalize_image("a.png", "http://h/x/") == "http://h/x/a.png"
    with pytest.raises(ValueError):
        canonicalize("data:image/png;base64,AA==", "http://h/")


def test_url_list_of_lines(tmp_path: Path) -> None:
    path = tmp_path / "urls.txt"
    path.write_text("\ufeff# seeds\nhttp://H/b\n\n  http://h/a#x \nhttp://h/b\n", encoding="utf-8")
    assert read_url_list(path) == ["http://h/b", "http://h/a"]


def test_url_list_of_a_csv_column(tmp_path: Path) -> None:
    path = tmp_path / "urls.csv"
    path.write_text('title,url\n"a, b",http://h/1\nc,\n"d\ne",http://h/2\n', encoding="utf-8")
    assert read_url_list(str(path)) == ["http://h/1", "http://h/2"]


@pytest.mark.parametrize(
    ("name", "text", "place"),
    [
        ("urls.txt", "http://h/\n\nnot a url\n", "urls.txt:3: "),
        ("urls.csv", "url\nhttp://h/\nmailto:x\n", "urls.csv:3: "),
        ("urls.csv", "link\nhttp://h/\n", "urls.csv:1: no column named url"),
    ],
)
def test_a_bad_list_names_file_and_line(tmp_path: Path, name: str, text: str, place: str) -> None:
    (tmp_path / name).write_text(text, encoding="utf-8")
    with pytest.raises(ValueError) as error:
        read_url_list(tmp_path / name)
    assert place in str(error.value)


def test_a_list_that_is_not_text_is_named(tmp_path: Path) -> None:
    (tmp_path / "urls.txt").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ValueError, match=r"urls\.txt: not UTF-8"):
        read_url_list(tmp_path / "urls.txt")
