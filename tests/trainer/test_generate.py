"""Text for a picture: the command, its mistakes in one line, and the page's snippet, on the tiny run's model."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from tests.trainer.fabricated import picture
from tests.trainer.training.test_checkpoint import ROOT
from trainer.data.corpus import open_corpus
from trainer.generate import app
from trainer.training.outcome import Outcome

RUNNER = CliRunner()


@pytest.fixture(scope="module")
def photo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("photo") / "picture.png"
    path.write_bytes(picture("coffee.png", 1))
    return path


def test_it_writes_what_the_run_showed(finished: Outcome, corpus: Path, tmp_path: Path) -> None:
    shown = finished.evaluation["after"]["generation"]
    opened = open_corpus(str(corpus))
    documents = [opened.document(index) for index in range(len(opened))]
    (document,) = (each for each in documents if each.document_id == shown["image"]["document_id"])
    path = tmp_path / "picture.jpeg"
    path.write_bytes(document.image_bytes(shown["image"]["image"]))
    where = ["--model", str(finished.out / "model"), "--image", str(path)]
    result = RUNNER.invoke(app, [*where, "--max-new-tokens", "8"])
    assert result.exit_code == 0, result.output
    # The run took the tower's features from its cache, in half precision; the command computes them.
    assert result.stdout.strip()[:2] == shown["text"][:2]
    longer = RUNNER.invoke(app, [*where, "--prompt", "A cup", "--max-new-tokens", "12"])
    # A model of eight steps may well find that nothing is left to say.
    assert longer.exit_code == 0 and longer.stdout.endswith("\n"), longer.output


def test_mistakes_exit_2_with_one_line(finished: Outcome, photo: Path, tmp_path: Path) -> None:
    model = str(finished.out / "model")
    (tmp_path / "text.png").write_text("no picture", encoding="utf-8")
    for kind, name in (("llama", "other"), ("interloom", "empty")):
        (tmp_path / name).mkdir()
        (tmp_path / name / "config.json").write_text(
            json.dumps({"model_type": kind, "image_size": 32}), encoding="utf-8"
        )
    for given, shown, message in (
        (model, tmp_path / "no.png", "no.png"),
        (model, tmp_path / "text.png", "not an image: starts with"),
        (tmp_path / "nothing", photo, "no such folder"),
        (tmp_path, photo, "not a model folder"),
        (tmp_path / "other", photo, "type llama"),
        (tmp_path / "empty", photo, "cannot be loaded"),
    ):
        result = RUNNER.invoke(app, ["--model", str(given), "--image", str(shown)])
        assert result.exit_code == 2 and message in result.output, result.output
        assert len(result.output.strip().splitlines()) == 1


@pytest.mark.slow
def test_the_page_s_snippet_runs(finished: Outcome, photo: Path) -> None:
    page = (ROOT / "docs" / "training.md").read_text(encoding="utf-8")
    (code,) = re.findall(r"```py\n(.*?)```", page, re.S)
    code = code.replace("out/demo/train/model", str(finished.out / "model")).replace(
        "max_new_tokens=40", "max_new_tokens=4"
    )
    code = code.replace('Path("picture.png")', f'Path("{photo}")')
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr


@pytest.mark.slow
@pytest.mark.parametrize("module", ["run", "generate"])
def test_a_mistake_in_the_options_is_one_line(module: str) -> None:
    done = subprocess.run(
        [sys.executable, "-m", f"trainer.{module}", "--zzz"], cwd=ROOT, capture_output=True, text=True, timeout=60
    )
    assert (done.returncode, done.stdout, done.stderr) == (2, "", "error: No such option: --zzz\n")
