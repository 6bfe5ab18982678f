"""An S3 server on loopback that keeps a log of what it was asked, and misbehaves on request.

with s3_server("corpora") as server:      # s3://corpora is a bucket
    build(spec, "s3://corpora/prints", **server.env)
    assert [call.kind for call in server.log].count("LIST") < 100
"""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qs
from urllib.request import Request, urlopen

import fsspec

_ANSWER = b"<?xml version='1.0'?><Error><Code>%s</Code><Message>Please reduce your request rate.</Message></Error>"


@dataclass(frozen=True)
class Call:
    """One request: LIST, GET, HEAD, PUT, DELETE or POST, and the path or prefix it was about, without the bucket."""

    kind: str
    path: str


@dataclass(frozen=True)
class Trouble:
    """What the server does instead of answering, or before it does."""

    status: str = ""  # "503 SlowDown"; "" answers as it should
    seconds: float = 0.0


@dataclass
class S3Server:
    """A running server with one bucket."""

    env: dict[str, str]
    log: list[Call] = field(default_factory=list)
    # Asked before every answer, with the call and how many came before it.
    trouble: Callable[[Call, int], Trouble | None] = lambda call, number: None

    def kinds(self) -> Counter[str]:
        """How many calls of each kind there were."""
        return Counter(call.kind for call in self.log)


class _Counted:
    """The server's application, behind the log."""

    def __init__(self, application: Any, server: S3Server) -> None:
        self._application = application
        self._server = server
        self._lock = threading.Lock()

    def __call__(self, environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
        call = _call(environ)
        with self._lock:
            number = len(self._server.log)
            self._server.log.append(call)
        trouble = self._server.trouble(call, number)
        if trouble is not None:
            time.sleep(trouble.seconds)
            if trouble.status:
                environ["wsgi.input"].read(int(environ.get("CONTENT_LENGTH") or 0))
                status, _, code = trouble.status.partition(" ")
                start_response(f"{status} {code}", [("Content-Type", "application/xml")])
                return [] if call.kind == "HEAD" else [_ANSWER % code.encode()]
        answered: Iterable[bytes] = self._application(environ, start_response)
        return answered


def _call(environ: dict[str, Any]) -> Call:
    _, _, path = str(environ["PATH_INFO"]).lstrip("/").partition("/")
    asked = parse_qs(str(environ.get("QUERY_STRING", "")))
    method = str(environ["REQUEST_METHOD"])
    if method == "GET" and ("list-type" in asked or "prefix" in asked):
        return Call("LIST", asked.get("prefix", [""])[0])
    return Call(method, path)


@contextmanager
def s3_server(bucket: str) -> Iterator[S3Server]:
    """The server within the block, with an empty bucket; `env` is what a client's environment needs."""
    # Here, as it takes a second: whoever asks for no server does without.
    from moto.moto_server.werkzeug_app import DomainDispatcherApplication, MotoRequestHandler, create_backend_app
    from werkzeug.serving import make_server

    class _Quiet(MotoRequestHandler):  # type: ignore[misc]  # moto says nothing of its types here
        """Writes no line for each request."""

        def log_request(self, *args: object) -> None:
            """Stay quiet."""

    server = S3Server({})
    application = _Counted(DomainDispatcherApplication(create_backend_app), server)
    running = make_server("127.0.0.1", 0, application, threaded=True, request_handler=_Quiet)
    thread = threading.Thread(target=running.serve_forever, daemon=True)
    thread.start()
    server.env |= {
        "AWS_ENDPOINT_URL": f"http://127.0.0.1:{running.server_port}",
        "AWS_ACCESS_KEY_ID": "testing",
        "AWS_SECRET_ACCESS_KEY": "testing",
        "AWS_DEFAULT_REGION": "eu-west-1",
        "AWS_CONFIG_FILE": "/nowhere/config",
        "AWS_SHARED_CREDENTIALS_FILE": "/nowhere/credentials",
    }
    try:
        # What it holds is the process's: an earlier server's would be there still.
        urlopen(Request(f"{server.env['AWS_ENDPOINT_URL']}/moto-api/reset", method="POST"), timeout=30).close()
        filesystem(server.env).mkdir(bucket)
        server.log.clear()
        yield server
    finally:
        running.shutdown()
        running.server_close()
        thread.join()


def filesystem(env: dict[str, str]) -> Any:
    """The bucket's own file system, for looking at what lies there."""
    return fsspec.filesystem(
        "s3",
        key=env["AWS_ACCESS_KEY_ID"],
        secret=env["AWS_SECRET_ACCESS_KEY"],
        endpoint_url=env["AWS_ENDPOINT_URL"],
        client_kwargs={"region_name": env["AWS_DEFAULT_REGION"]},
        use_listings_cache=False,
        skip_instance_cache=True,
    )
