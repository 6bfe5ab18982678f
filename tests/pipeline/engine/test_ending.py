"""Orders to end: one line and the shell's number, whoever has set handlers in between."""

from __future__ import annotations

import io
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator

import pytest
import typer

from pipeline.command import run_command
from pipeline.engine.ending import Terminated, catch_sigterm, end_library_threads, own_sigterm


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


def test_threads_of_libraries_end_and_start_again_when_needed() -> None:
    from fsspec.asyn import get_loop
    from tqdm import tqdm

    def daemons() -> set[str]:
        return {each.name for each in threading.enumerate() if each.daemon}

    for _ in range(2):
        with tqdm([1], disable=False, file=io.StringIO()):
            get_loop()
            assert {"fsspecIO", "tqdm_monitor"} <= daemons()
        end_library_threads()
        assert not {"fsspecIO", "tqdm_monitor"} & daemons()
