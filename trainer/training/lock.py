"""One trainer a run folder: a second one is told which process has it.

    OUT/.lock     held by flock, which the system lets go of when the process ends, however it ends
    OUT/.lease    where the storage has no flock: touched every few seconds, stale when that stops

Both hold who has the folder, and a word that no other start has, by which ranks on other nodes know that they see the
same folder.
"""

from __future__ import annotations

import errno
import fcntl
import json
import os
import secrets
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

from trainer.errors import UserError
from trainer.training.disk import room_for

BEAT = 10.0  # seconds between touches of a lease
STALE = 60.0  # seconds without one after which nobody holds it
_NO_FLOCK = (errno.ENOTSUP, errno.ENOSYS, errno.ENOLCK, errno.EINVAL)

_held: set[int] = set()  # descriptors of locks


def _let_go() -> None:
    """A forked worker that outlives its killed trainer must not keep the lock."""
    for descriptor in _held:
        os.close(descriptor)
    _held.clear()


os.register_at_fork(after_in_child=_let_go)


@dataclass(frozen=True)
class Holder:
    """Who has a run folder."""

    host: str
    process: int
    since: str  # local time
    word: str

    @classmethod
    def here(cls) -> Holder:
        """This process, with a word of its own."""
        return cls(socket.gethostname(), os.getpid(), time.strftime("%Y-%m-%d %H:%M:%S"), secrets.token_hex(8))

    @classmethod
    def read(cls, path: Path) -> Holder | None:
        """Whom a file names; None when there is none, or it is being written."""
        try:
            return cls(**json.loads(path.read_text(encoding="utf-8")))
        except (OSError, ValueError, TypeError):
            return None

    def text(self) -> str:
        """What `read` reads."""
        return json.dumps(asdict(self))


@contextmanager
def hold(out: Path) -> Iterator[tuple[str, str]]:
    """Have the run folder to oneself; gives (name of the file in it, its text), for `check_seen`.

    Raises UserError when another trainer has it, or the folder cannot be made or written.
    """
    try:
        with room_for(out):
            out.mkdir(parents=True, exist_ok=True)
            descriptor = _lock(out / ".lock")
    except OSError as error:
        raise UserError(f"--out {out}: cannot be written: {error.strerror}") from None
    if descriptor is None:
        with _lease(out / ".lease") as text:
            yield ".lease", text
        return
    _held.add(descriptor)
    try:
        text = Holder.here().text()
        with room_for(out / ".lock"):
            os.ftruncate(descriptor, 0)
            os.pwrite(descriptor, text.encode(), 0)
            os.fsync(descriptor)
        yield ".lock", text
    finally:
        # Removed while it is held: whoever opened it meanwhile sees that the name is another file's, or nobody's.
        (out / ".lock").unlink(missing_ok=True)
        _held.discard(descriptor)
        os.close(descriptor)


def check_seen(out: Path, name: str, text: str, rank: int) -> None:
    """UserError when this rank, in `out`, does not see the file that the first rank holds its run folder by."""
    try:
        same = (out / name).read_text(encoding="utf-8") == text
    except OSError:
        same = False
    if not same:
        first = Holder(**json.loads(text))
        raise UserError(
            f"rank {rank} on {socket.gethostname()} does not see the run folder {out.absolute()} that rank 0 on "
            f"{first.host} writes: --out must be storage that every node sees"
        )


def _in_use(path: Path) -> UserError:
    holder = Holder.read(path)
    by = f"by process {holder.process} on {holder.host} since {holder.since}" if holder else "by another trainer"
    return UserError(f"{path.parent} is in use {by}: wait until it has ended, or name another folder with --out")


def _lock(path: Path) -> int | None:
    """The descriptor of a file that only we have locked; None where the storage has no flock."""
    while True:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if os.path.samestat(os.fstat(descriptor), os.stat(path)):
                return descriptor
        except FileNotFoundError:
            pass  # its holder removed it, and ended, between our two looks
        except BlockingIOError:
            os.close(descriptor)
            raise _in_use(path) from None
        except OSError as error:
            os.close(descriptor)
            if error.errno not in _NO_FLOCK:
                raise
            path.unlink(missing_ok=True)
            return None
        os.close(descriptor)


@contextmanager
def _lease(path: Path) -> Iterator[str]:
    """A file that is ours while we touch it; gives its text."""
    text = Holder.here().text()
    _remove_stale(path)
    try:
        with room_for(path), path.open("x", encoding="utf-8") as file:
            file.write(text)
    except FileExistsError:
        raise _in_use(path) from None
    ended = threading.Event()

    def touch() -> None:
        while not ended.wait(BEAT):
            try:
                os.utime(path)
            except OSError:
                continue  # a storage that is away for a moment

    thread = threading.Thread(target=touch, daemon=True)
    thread.start()
    try:
        yield text
    finally:
        ended.set()
        thread.join()
        # Who slept longer than a lease lasts may have lost it to another.
        if Holder.read(path) == Holder(**json.loads(text)):
            path.unlink(missing_ok=True)


def _remove_stale(path: Path) -> None:
    """Remove the lease of a trainer that was killed; UserError when its holder is alive."""
    try:
        said, touched = path.read_text(encoding="utf-8"), path.stat().st_mtime
    except FileNotFoundError:
        return
    # Nodes' clocks differ; the storage has one.
    probe = path.with_name(f"{path.name}.{secrets.token_hex(8)}")
    probe.touch()
    now = probe.stat().st_mtime
    probe.unlink()
    holder = Holder.read(path)
    dead = holder is not None and holder.host == socket.gethostname() and not _runs(holder.process)
    if not dead and now - touched < STALE:
        raise _in_use(path)
    # Of several that found it stale one moves it; what another has made since is put back.
    try:
        path.rename(probe)
    except FileNotFoundError:
        raise _in_use(path) from None
    if probe.read_text(encoding="utf-8") != said:
        probe.rename(path)
        raise _in_use(path)
    probe.unlink()


def _runs(process: int) -> bool:
    """Whether a process of this node runs."""
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True
