"""Orders to end: one line and the shell's number, whoever has set handlers in between."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator

import pytest
import typer

from pipeline.command import run_command
from pipeline.engine.ending import LIBRARY_THREADS, Terminated, catch_sigterm, own_sigterm


@pytest.fixture(autouse=True)
def handlers() -> Iterator[None]:
    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


def order(number: int) -> Callable[[], None]:
    """A command that is told to end, as by a person or a scheduler."""

    def command() -> None:
        catch_sigterm()
        signal.signal(signal.SIGINT, signal.default_int_handler)
        try:
            os.kill(os.getpid(), number)
        finally:
            os.kill(os.getpid(), signal.SIGTERM if number == signal.SIGTERM else 0)  # a second one changes nothing

    return command


@pytest.mark.parametrize(
    ("number", "code", "word"), [(signal.SIGTERM, 143, "terminated"), (signal.SIGINT, 130, "interrupted")]
)
def test_an_order_to_end_is_one_line_and_the_number_of_the_shell(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], number: int, code: int, word: str
) -> None:
    app = typer.Typer(pretty_exceptions_enable=False)
    app.command()(order(number))
    monkeypatch.setattr(sys, "argv", ["build"])
    with pytest.raises(SystemExit) as ended:
        run_command(app)
    said = capsys.readouterr()
    assert ended.value.code == code and said.out == ""
    assert said.err.strip() == f"error: {word}; run the same command again to go on"


def test_handlers_of_others_do_not_outlive_what_set_them() -> None:
    catch_sigterm()
    mine = signal.getsignal(signal.SIGTERM)
    with own_sigterm():
        signal.signal(signal.SIGTERM, lambda *_: sys.exit(15))
    assert signal.getsignal(signal.SIGTERM) is mine
    with pytest.raises(Terminated), own_sigterm():
        signal.signal(signal.SIGTERM, lambda *_: sys.exit(15))
        os.kill(os.getpid(), signal.SIGTERM)
    assert signal.getsignal(signal.SIGTERM) is mine


LIBRARIES = """
import atexit, io, threading
daemons = lambda: sorted(each.name for each in threading.enumerate() if each.daemon)
atexit.register(lambda: print(daemons()))  # runs after what is registered later
import pipeline.engine.ending
from fsspec.asyn import get_loop
from tqdm import tqdm
with tqdm([1], file=io.StringIO()):
    get_loop()
print(daemons())
"""


def test_daemon_threads_of_libraries_end_before_the_interpreter_does() -> None:
    done = subprocess.run([sys.executable, "-c", LIBRARIES], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout.split("\n")[:2] == [str(sorted(LIBRARY_THREADS)), "[]"] and not done.stderr
