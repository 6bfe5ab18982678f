"""A stand-in of Ray's Jobs API on loopback: it takes packages and jobs, and every job succeeds at once."""

from __future__ import annotations

import contextlib
import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


class JobsServer(ThreadingHTTPServer):
    """`submitted` holds what was asked for, in order: {"entrypoint", "submission_id", "runtime_env", ...}."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.submitted: list[dict[str, Any]] = []
        self.packages: dict[str, bytes] = {}

    @property
    def port(self) -> int:
        return int(self.server_address[1])

    def jobs(self) -> list[dict[str, Any]]:
        """What the API says of every job."""
        return [
            {
                "type": "SUBMISSION",
                "submission_id": job["submission_id"],
                "status": "SUCCEEDED",
                "entrypoint": job["entrypoint"],
                "message": "done",
                "driver_exit_code": 0,
            }
            for job in self.submitted
        ]


class _Handler(BaseHTTPRequestHandler):
    server: JobsServer

    def do_GET(self) -> None:
        _, area, *rest = self.path.strip("/").split("/")
        if area == "version":
            # As Ray's own dashboard answers; the client refuses a server that is much older than itself.
            return self._say({"version": "4", "ray_version": "2.60.0", "ray_commit": "", "session_name": "test"})
        if area == "packages":
            return self._say({}) if "/".join(rest) in self.server.packages else self._say({}, 404)
        found = {job["submission_id"]: job for job in self.server.jobs()}
        if not rest:
            return self._say(list(found.values()))
        return self._say({"logs": "the job says hello\n"} if rest[1:] == ["logs"] else found[rest[0]])

    def do_PUT(self) -> None:
        name = self.path.split("/packages/", 1)[1]
        self.server.packages[name] = self._body()
        self._say({})

    def do_POST(self) -> None:
        job = json.loads(self._body())
        self.server.submitted.append(job)
        self._say({"submission_id": job["submission_id"], "job_id": job["submission_id"]})

    def _body(self) -> bytes:
        return self.rfile.read(int(self.headers.get("Content-Length", 0)))

    def _say(self, value: Any, status: int = 200) -> None:
        data = json.dumps(value).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, format: str, *args: object) -> None:
        pass


@contextlib.contextmanager
def jobs_server() -> Iterator[JobsServer]:
    """The server while the block runs."""
    server = JobsServer()
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
