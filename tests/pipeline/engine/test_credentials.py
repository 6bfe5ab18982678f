"""Credentials reach nothing that is published or said: what names a URL refuses them, what says one masks them."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from pipeline import build, explain
from pipeline.command import fail, run_command
from pipeline.engine.credentials import carried

SPEC = """
name: small
output: {url: OUT}
source: SOURCE
embed: {shared: conse}
"""
SITE = '{kind: site, seeds: ["http://site.test/", "URL"]}'


def refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], source: str, *more: str
) -> str:
    """The one line with which a build refuses a spec; nothing is written."""
    spec = tmp_path / "small.yaml"
    spec.write_text(SPEC.replace("OUT", str(tmp_path / "out")).replace("SOURCE", source))
    monkeypatch.setattr(sys, "argv", ["build", "--spec", str(spec), *more])
    with pytest.raises(SystemExit) as exit:
        run_command(build.app)
    said = capsys.readouterr()
    assert exit.value.code == 2 and said.out == "" and said.err.count("\n") == 1, said
    assert "sekret" not in said.err and not (tmp_path / "out").exists()
    return said.err


@pytest.mark.parametrize(
    "url",
    [
        "http://user:sekret@site.test/",
        "HTTPS://sekret@site.test/a",
        "http:\\\\\\\\user:sekret@site.test/",
        "http://user:se%2Fkret@[::1]:80/",
        "http://site.test/?a=1&Token=sekret",
        "http://site.test/?X-Amz-Signature=sekret#x",
    ],
)
def test_a_seed_with_credentials_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], url: str
) -> None:
    said = refused(tmp_path, monkeypatch, capsys, SITE.replace("URL", url))
    assert said.startswith("error: source.seeds: the URL carries a ") and "leave it out" in said


def test_every_other_place_of_a_url_refuses_them_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "list.txt").write_text("# http\nhttp://site.test/\nhttp://user:sekret@site.test/x\n")
    (tmp_path / "list.csv").write_text('name,url\na,"http://sekret@site.test/x"\n')
    for words, source, *more in (
        ("source.path: " + str(tmp_path / "list.txt:3: "), f"{{kind: urls, path: {tmp_path}/list.txt}}"),
        ("source.path: " + str(tmp_path / "list.csv:2: "), f"{{kind: urls, path: {tmp_path}/list.csv}}"),
        ("source.base_url: ", f"{{kind: html, path: {tmp_path}, base_url: 'http://user:sekret@site.test/'}}"),
        ("source.paths: ", "{kind: warc, paths: ['s3://key:sek/ret+sekret@bucket/a.warc.gz']}"),
        ("source.paths: ", "{kind: warc, paths: ['https://cdn.test/a.warc.gz?sig=sekret']}"),
        ("output.url: ", SITE.replace("URL", "http://b.test/"), "--out", "s3://key:sekret@bucket/prefix"),
        ("output.url: ", SITE.replace("URL", "http://b.test/"), "--out", "simplecache::ftp://me:sekret@host/prefix"),
    ):
        said = refused(tmp_path, monkeypatch, capsys, source, *more)
        assert said.startswith(f"error: {words}") and "carries" in said, said
    monkeypatch.setattr(sys, "argv", ["explain", "--url", "x", "--corpus", "s3://key:sekret@bucket/c"])
    with pytest.raises(SystemExit):
        run_command(explain.app)
    assert capsys.readouterr().err.startswith("error: --corpus: the URL carries a user or password")


@pytest.mark.parametrize(
    "url",
    [
        "http://127.0.0.1:8080/a@b?tokens=3&page=token",
        "https://site.test/user:name@example",
        "abfs://container@account.dfs.core.windows.net/prefix",
        "s3://bucket/a@b/c:d",
        "/a/path:with@signs",
        "out/demo",
    ],
)
def test_other_urls_pass(url: str) -> None:
    assert carried(url) is None


def test_a_message_hides_the_password_of_a_url(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        fail("cannot open 'ftp://me:sekret@host/x', see http://host:80/a@b", 1)
    assert capsys.readouterr().err == "error: cannot open 'ftp://***@host/x', see http://host:80/a@b\n"
