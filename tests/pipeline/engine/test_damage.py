"""Damaged and foreign corpora: whatever lies there, a command says it in one line, 2 for a wrong name, 1 for damage."""

from __future__ import annotations

import json
import shutil
import socket
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from pipeline import build, explain, gc
from pipeline.command import fail, run_command
from pipeline.engine.damage import Damaged
from pipeline.engine.layout import LATEST
from pipeline.engine.storage import Storage
from pipeline.engine.work_folder import WorkFolder
from pipeline.phases.generation import Generation
from pipeline.report import __main__ as report
from tests.pipeline.small_corpus import SITE, VERSION, write

COMMANDS: dict[str, tuple[Any, list[str]]] = {
    "explain": (explain.app, ["--url", f"{SITE}/cats"]),
    "gc": (gc.app, ["--dry-run"]),
    "report": (report.app, []),
}
MANIFEST = f"versions/{VERSION}/manifest.json"
End = Callable[..., tuple[int, str]]


@pytest.fixture(scope="module")
def intact(tmp_path_factory: pytest.TempPathFactory) -> Path:
    corpus = write(str(tmp_path_factory.mktemp("intact")))
    root = Path(corpus.storage.url)
    for path in root.glob("records/*/*/*.json"):
        record = json.loads(path.read_text())
        record["ingredients"].setdefault("functions", {})
        path.write_text(json.dumps(record))
    return root


@pytest.fixture
def corpus(intact: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(intact, tmp_path / "corpus"))


@pytest.fixture
def ended(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> End:
    """ended(command, argument, …) runs it; its exit code and what it said, one line where it failed."""

    def run(command: str, *arguments: str) -> tuple[int, str]:
        app, more = COMMANDS[command]
        monkeypatch.setattr(sys, "argv", [command, *arguments, *more])
        with pytest.raises(SystemExit) as exit:
            run_command(app)
        said = capsys.readouterr()
        if exit.value.code:
            assert said.out == "" and said.err.startswith("error: ") and said.err.count("\n") == 1, said
        assert isinstance(exit.value.code, int)
        return exit.value.code, said.err or said.out

    return run


@pytest.mark.parametrize("command", COMMANDS)
def test_an_intact_corpus(ended: End, corpus: Path, command: str) -> None:
    assert ended(command, "--corpus", str(corpus))[0] == 0


@pytest.mark.parametrize("command", COMMANDS)
@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"\xff\xfe", "latest names no version: delete it"),
        (b"", "latest names no version"),
        (b"../versions", "latest names no version"),
        (b"a\0b", "latest names no version"),
        (b"gone\n", f"latest names version 'gone', which is not there (there are: {VERSION})"),
        (None, "latest names no version"),
    ],
)
def test_latest(ended: End, corpus: Path, command: str, content: bytes | None, words: str) -> None:
    (corpus / LATEST).unlink()
    if content is None:
        (corpus / LATEST).mkdir()
    else:
        (corpus / LATEST).write_bytes(content)
    code, said = ended(command, "--corpus", str(corpus))
    assert code == 1 and words in said


def changed(**fields: Any) -> Callable[[dict[str, Any]], dict[str, Any]]:
    return lambda manifest: manifest | fields


def without(name: str) -> Callable[[dict[str, Any]], dict[str, Any]]:
    return lambda manifest: {key: value for key, value in manifest.items() if key != name}


@pytest.mark.parametrize("command", COMMANDS)
@pytest.mark.parametrize(
    ("change", "words"),
    [
        (b"", "not JSON: "),
        (b"\xff{", "not JSON: "),
        (b"{}", "not a manifest: it has no manifest_version"),
        (b"[]", "not a manifest: it has no manifest_version"),
        (changed(manifest_version=99, later=1), "manifest version 99, and this program reads version 2"),
        (changed(later=1), "not a manifest: later is unknown"),
        (without("phases"), "not a manifest: phases is missing"),
        (changed(phases={"pages": 3}), "not a manifest: phases.pages is no str"),
        (changed(shards=[{"name": "x"}]), "not a manifest: shards.0.rows is missing"),
        (changed(version="other"), "is of version 'other'"),
        (changed(phases={"pages": "records/pages/gone/00000.json"}), "records/pages/gone/00000.json is missing: build"),
    ],
)
def test_a_version_manifest(ended: End, corpus: Path, command: str, change: Any, words: str) -> None:
    manifest = json.loads((corpus / MANIFEST).read_text())
    data = change if isinstance(change, bytes) else json.dumps(change(manifest)).encode()
    (corpus / MANIFEST).write_bytes(data)
    code, said = ended(command, "--corpus", str(corpus))
    assert code == 1 and words in said


@pytest.mark.parametrize("command", COMMANDS)
@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"", "not JSON: "),
        (b"{}", "it has no record_version: delete it and build again"),
        (None, "is missing: build again"),
    ],
)
def test_a_record(ended: End, corpus: Path, command: str, data: bytes | None, words: str) -> None:
    (path,) = corpus.glob("records/documents/*/*.json")
    path.unlink()
    if data is not None:
        path.write_bytes(data)
    code, said = ended(command, "--corpus", str(corpus))
    assert code == 1 and str(path.relative_to(corpus)) in said and words in said


@pytest.mark.parametrize("command", COMMANDS)
@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"", "not JSON: "),
        (b"{}", "it has no table_version: delete it and build again"),
        (None, "is missing: delete records/documents and work/documents and build again"),
    ],
)
def test_a_table(ended: End, corpus: Path, command: str, data: bytes | None, words: str) -> None:
    (path,) = corpus.glob("tables/documents/*/*.json")
    path.unlink()
    if data is not None:
        path.write_bytes(data)
    code, said = ended(command, "--corpus", str(corpus))
    assert code == 1 and str(path.relative_to(corpus)) in said and words in said


def test_a_spec_of_another_release_ends_the_report_alone(ended: End, corpus: Path) -> None:
    manifest = json.loads((corpus / MANIFEST).read_text())
    manifest["spec"]["filter"] = {"gone": 1}
    (corpus / MANIFEST).write_text(json.dumps(manifest))
    code, said = ended("report", "--corpus", str(corpus))
    assert code == 1 and "its spec's section 'filter' is not what this version of the program takes" in said
    assert ended("explain", "--corpus", str(corpus))[0] == 0


def test_gc_removes_nothing_when_a_table_does_not_say_what_it_was_made_with(ended: End, corpus: Path) -> None:
    (path,) = corpus.glob("records/pages/*/*.json")
    path.write_text(json.dumps(json.loads(path.read_text()) | {"ingredients": {}}))
    code, said = ended("gc", "--corpus", str(corpus))
    assert code == 1 and "names no functions" in said


@pytest.mark.parametrize("command", COMMANDS)
def test_what_is_no_corpus_at_all(ended: End, corpus: Path, command: str, tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # and nobody listens
        nobody = f"http://127.0.0.1:{taken.getsockname()[1]}/"
        for given, words in {
            str(corpus / LATEST): "Not a directory",
            str(tmp_path / "nothing"): "",
            "a" * 5000: "File name too long",
            "a\0b": "embedded null byte",
            "nosuch://x": "cannot open nosuch://x",
            "github://x": "cannot open github://x",
            nobody: f"cannot read {nobody.rstrip('/')}: Cannot connect",
        }.items():
            code, said = ended(command, "--corpus", given)
            assert code == 2 and words in said and said.startswith("error: --corpus "), said


@pytest.mark.parametrize("version", ["gone", "../corpus", "a\0b", "a\nb"])
def test_a_version_that_is_not_there(ended: End, corpus: Path, version: str) -> None:
    for command in ("explain", "report"):
        code, said = ended(command, "--corpus", str(corpus), "--version", version)
        assert code == 2 and f"there are: {VERSION}" in said


def test_explain_takes_any_bytes_for_a_url(corpus: Path, ended: End, monkeypatch: pytest.MonkeyPatch) -> None:
    for url, code, words in (
        (f"{SITE}/\udcff", 2, f"--url {SITE}/\\udcff: not UTF-8"),
        (f"{SITE}/zzz\n\x1b[31m", 2, f"--url {SITE}/zzz \\x1b[31m: neither a page nor an image"),
        (f"{SITE}/c\nats", 0, f"{SITE}/cats\n  crawl: "),
        (f"{SITE}/img/\n3.jpg", 0, "3.jpg\n  fetched: "),
    ):
        monkeypatch.setitem(COMMANDS, "explain", (explain.app, ["--url", url]))
        found, said = ended("explain", "--corpus", str(corpus))
        assert (found, words in said) == (code, True), said


SPEC = """
name: small
output: {url: OUT}
source: {kind: site, seeds: ["http://site.test/"]}
embed: {shared: conse}
"""


def dry_run(out: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> tuple[object, str, str]:
    (out.parent / "small.yaml").write_text(SPEC.replace("OUT", str(out)))
    monkeypatch.setattr(sys, "argv", ["build", "--spec", str(out.parent / "small.yaml"), "--dry-run"])
    with pytest.raises(SystemExit) as exit:
        run_command(build.app)
    said = capsys.readouterr()
    return exit.value.code, said.out, said.err


def test_a_build_tells_damage_and_passes_over_other_releases(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    storage = Storage(str(tmp_path / "out"))
    # A record under another key explains nothing, whoever wrote it; a broken receipt is none.
    storage.write("records/pages/0123/00000.json", b'{"record_version": 99}')
    storage.write("work/pages/0123/00000000-ffffffff-00000.json", b"{}")
    assert WorkFolder(storage, "pages", "0123").receipts(0) == []
    code, out, _ = dry_run(tmp_path / "out", monkeypatch, capsys)
    assert code == 0 and "never finished here" in out
    Generation(storage, "default").advance()
    (name,) = storage.walk("rows")
    storage.write(name, b"[]")
    with pytest.raises(Damaged, match="holds no generation"):
        Generation(storage, "default").current()
    code, _, error = dry_run(tmp_path / "out", monkeypatch, capsys)
    assert code == 1 and "holds no generation: delete it" in error and error.count("\n") == 1


def test_a_failure_is_one_line_whatever_it_says(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        fail("a\n  b\r\nc\x07\udcffé", 2)
    assert capsys.readouterr().err == "error: a b c\\x07\\udcffé\n"
