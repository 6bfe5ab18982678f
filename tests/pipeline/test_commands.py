"""The build command: every mistake that can be seen beforehand is one line on standard error, and exit 2."""

from __future__ import annotations

import pickle
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from ray.exceptions import RayTaskError

from pipeline import build
from pipeline.engine.cluster import submitted
from pipeline.engine.damage import Damaged
from pipeline.engine.recovery import line_for_people
from pipeline.engine.storage import StorageFull
from stages.row_function import CannotRun

Try = Callable[..., str]
SPEC = """
name: small
output: {url: OUT}
source: {kind: site, seeds: ["http://site.test/"]}
embed: {shared: conse}
"""


@pytest.fixture
def mistaken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Try:
    """mistaken(argument, …) runs the command, which must end with code 2 and one line; returns the line."""
    spec = tmp_path / "small.yaml"
    spec.write_text(SPEC.replace("OUT", str(tmp_path / "out")))
    for name in ("RAY_ADDRESS", "RAY_JOB_CONFIG_JSON_ENV_VAR", "PYTHONPATH"):
        monkeypatch.delenv(name, raising=False)

    def run(*arguments: str, with_spec: bool = True) -> str:
        given = ["--spec", str(spec), *arguments] if with_spec else arguments
        monkeypatch.setattr(sys, "argv", ["build", *given])
        with pytest.raises(SystemExit) as ended:
            build.main()
        said = capsys.readouterr()
        assert ended.value.code == 2, said.err
        assert said.out == "" and said.err.count("\n") == 1 and said.err.startswith("error: "), said.err
        assert not (tmp_path / "out").exists(), "a mistake must leave nothing"
        return said.err.removeprefix("error: ").strip()

    return run


@pytest.mark.parametrize("dry_run", [[], ["--dry-run"]])
@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--until", "embedings"], "--until embedings: no such phase; there are pages, documents,"),
        (
            ["--set", "resources.operators.extrakt.cpus=2"],
            "resources.operators.extrakt: no such operator; there are pages.look, pages.rows, pages, extract,",
        ),
        (
            ["--set", "resources.operators.embed_image={min_workers: 3, max_workers: 2}"],
            "resources.operators.embed_image: min_workers is 3, above max_workers, 2",
        ),
        (["--set", "mine.top_k"], "--set mine.top_k: write it as section.field=value"),
        (["--set", "mine.topk=3"], "mine.topk: unknown field; did you mean 'top_k'?"),
        (["--set", "mine.top_k=x"], "mine.top_k: Input should be a valid integer, unable to parse"),
        (["--set", "source.seeds=[ftp://site.test/]"], "source.seeds: "),
        (["--set", "source.seeds=['http://']"], "source.seeds: "),
        (["--out", "nosuch://somewhere"], "output: cannot open nosuch://somewhere"),
        (["--frobnicate"], "No such option: --frobnicate"),
    ],
)
def test_mistakes_in_command_and_spec(mistaken: Try, arguments: list[str], words: str, dry_run: list[str]) -> None:
    if words.startswith("mine.top_k: Input"):
        words = "mine.top_k: Input should be a valid integer"
    assert words in mistaken(*arguments, *dry_run)


def source(text: str) -> list[str]:
    return ["--set", f"source={{{text}}}"]


def test_a_spec_that_is_not_there(mistaken: Try) -> None:
    assert "nosuch.yaml: no such file, nor a packaged spec (there are demo.yaml" in mistaken(
        "--spec", "nosuch.yaml", with_spec=False
    )
    assert "--spec" in mistaken(with_spec=False)


def test_sources_on_disk_that_hold_nothing(mistaken: Try, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "urls.txt").write_text("\n\n")
    (tmp_path / "bad.txt").write_text("not a url\n")

    html = f"kind: html, base_url: 'http://site.test/', path: {tmp_path}"
    assert "source.path" in mistaken(*source(f"{html}/nosuch")) and "is not a folder" in mistaken(
        *source(f"{html}/nosuch")
    )
    assert "holds no .html, .htm or .xhtml file" in mistaken(*source(f"{html}/empty"))
    assert "source.base_url: " in mistaken(*source(f"kind: html, base_url: nowhere, path: {tmp_path}/empty"))
    assert "urls.txt holds no URL" in mistaken(*source(f"kind: urls, path: {tmp_path}/urls.txt"))
    assert "source.path: " in mistaken(*source(f"kind: urls, path: {tmp_path}/nosuch.txt"))
    assert "no such file" in mistaken(*source(f"kind: warc, paths: ['{tmp_path}/*.warc.gz']"))
    for long in (f"kind: urls, path: {'a' * 5000}", f"kind: warc, paths: [{'a' * 5000}]"):
        assert "no such file" in mistaken(*source(long))
    assert "is not a folder" in mistaken(*source(f"kind: html, base_url: 'http://site.test/', path: {'a' * 5000}"))
    (tmp_path / "wide.csv").write_text('"' + "a" * 200_000 + '",url\nx,http://site.test/\n')
    assert "field larger than field limit" in mistaken(*source(f"kind: urls, path: {tmp_path}/wide.csv"))
    for more in ([], ["--dry-run"]):
        said = mistaken(*source("kind: warc, paths: ['nosuch://x']"), "--until", "pages", *more)
        assert said.startswith("source.paths: nosuch://x: cannot be read: ")


def test_documents_that_are_none(mistaken: Try, tmp_path: Path) -> None:
    folder = tmp_path / "given"
    folder.mkdir()
    (folder / "README.md").write_text("about it")
    given = f"kind: documents, path: {folder}"
    kinds = "*.parquet, *.jsonl, *.jsonl.gz, *.jsonl.zip"
    assert mistaken(*source(f"{given}")) == f"source.path: {folder}: holds no file {kinds}"
    assert mistaken(*source(f"{given}/README.md")) == f"source.path: {folder}/README.md: holds no file {kinds}"
    for nowhere in ("nosuch.parquet", "*.parquet"):
        assert mistaken(*source(f"{given}/{nowhere}")) == f"source.path: {folder}/{nowhere}: no such file"
    (folder / "a.jsonl").write_text('{"caption": "a cat"}\n')
    unknown = (
        f"source.path: {folder}/a.jsonl: its columns are caption, and of the layouts interloom has nodes; "
        "obelics has images, texts; mmc4 has image_info, text_list"
    )
    assert mistaken(*source(given), "--dry-run") == mistaken(*source(f"{given}/*"), "--dry-run") == unknown
    (folder / "a.parquet").write_text("nothing of the kind")
    said = mistaken(*source(f"{given}/a.parquet"))
    assert said.startswith(f"source.path: {folder}/a.parquet: not a Parquet file, or a damaged one: ")
    (folder / "b.jsonl").write_text('{"url": "http://site.test/", "nodes": []}\n')
    assert mistaken(*source(given), "--out", f"{folder}/out") == (
        f"output: {folder}/out lies in source.path {folder}: a corpus is no source of itself"
    )
    assert mistaken(*source("kind: documents, path: 'nosuch://x'")).startswith(
        "source.path: nosuch://x: cannot be read"
    )
    assert "source.sample: " in mistaken("--sample", "200%")


def test_weights_that_are_not_there_are_told_before_anything_runs(
    mistaken: Try, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("INTERLOOM_CACHE", str(tmp_path / "cache"))
    for more in ([], ["--dry-run"], ["--until", "embeddings"]):
        said = mistaken(*more)
        assert said.startswith("embed: efficientnet_lite0: ")
        assert "python -m assets fetch" in said and "minilm: " in said
    nowhere = tmp_path / "nowhere.pt"
    assert f"there is no {nowhere}" in mistaken("--set", f"embed.image_primary=timm:resnet18@{nowhere}")


def test_a_corpus_is_no_source_of_itself(mistaken: Try, tmp_path: Path) -> None:
    (tmp_path / "pages").mkdir()
    (tmp_path / "pages/a.html").write_text("<p>a")
    html = source(f"kind: html, base_url: 'http://site.test/', path: {tmp_path}/pages")
    assert mistaken(*html, "--out", f"{tmp_path}/pages/out", "--dry-run") == (
        f"output: {tmp_path}/pages/out lies in source.path {tmp_path}/pages: a corpus is no source of itself"
    )


@pytest.mark.parametrize(
    ("value", "says"),
    [
        ("filter.document.num_words.max=.inf", "finite number"),
        ("expect.documents.min=.nan", "finite number"),
        ("embed.device=nonsense", "embed.device: "),
        ("mine.kinds=[]", "mine.kinds: "),
    ],
)
def test_values_that_would_only_fail_later(mistaken: Try, value: str, says: str) -> None:
    assert says in mistaken("--set", value, "--dry-run")


@pytest.mark.parametrize("name", ["oo #1", "&x y", "2026-11-05", "off", "@x", " "])
def test_the_output_is_taken_as_it_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], name: str
) -> None:
    (tmp_path / "small.yaml").write_text(SPEC.replace("OUT", "elsewhere"))
    outputs: list[str] = []
    monkeypatch.setattr("pipeline.builds.dry_run.describe", lambda spec, until: outputs.append(spec.output.url) or [])
    monkeypatch.setattr(sys, "argv", ["build", "--spec", str(tmp_path / "small.yaml"), "--dry-run", "--out", name])
    with pytest.raises(SystemExit) as ended:
        build.main()
    assert (ended.value.code, outputs) == (0, [name]), capsys.readouterr().err


def test_an_output_that_cannot_be_a_folder(mistaken: Try, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    assert f"output: cannot read {tmp_path}/file/out" in mistaken("--out", f"{tmp_path}/file/out", "--dry-run")


def test_a_dry_run_leaves_nothing_and_says_what_would_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert not submitted()
    (tmp_path / "small.yaml").write_text(SPEC.replace("OUT", str(tmp_path / "out")))
    monkeypatch.setattr(sys, "argv", ["build", "--spec", str(tmp_path / "small.yaml"), "--dry-run"])
    with pytest.raises(SystemExit) as ended:
        build.main()
    said = capsys.readouterr()
    assert ended.value.code == 0 and said.err == ""
    lines = said.out.splitlines()
    assert lines[0].split()[:2] == ["pages", "looks"] and lines[1].split()[:2] == ["documents", "runs"]
    assert all("never finished here" in line for line in lines[:-1])
    assert lines[-1] == f"{len(lines) - 1} of {len(lines) - 1} phases would run, or may have to; nothing was done"
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("raised", "line"),
    [
        (StorageFull(28, "no space left for /c/x; free space and run again"), "no space left for /c/x; free space"),
        (OSError(28, "No space left on device", "/tmp/x"), "No space left on device: '/tmp/x'"),
        (CannotRun("embed: x on device 'cuda': none here"), "embed: x on device 'cuda': none here"),
        (Damaged("x is damaged: build again", "x"), "x is damaged: build again"),
        (RuntimeError("ray::Map()\n  [Errno 28] No space left on device: '/r'\nmore"), "No space left on device: '/r'"),
        (FileNotFoundError(2, "No such file", "/x"), None),
        (ValueError("StorageFull: is only named"), None),
    ],
)
def test_what_stops_every_worker_is_one_line(raised: Exception, line: str | None) -> None:
    told = RayTaskError("Map", "a traceback", pickle.loads(pickle.dumps(raised)))
    for error in (raised, told, told.as_instanceof_cause()):
        said = line_for_people(error)
        assert said is None if line is None else (said or "").startswith(line)
