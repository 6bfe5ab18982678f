"""nginx on loopback, for tests against a server that others wrote.

    with nginx(folder, "location / { root /srv/site; }") as url: ...

Where it is not installed the test is skipped, unless INTERLOOM_REQUIRE_NGINX is set, as CI does.
"""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

_MODULES = Path("/usr/lib/nginx/modules")
_BROTLI = _MODULES / "ngx_http_brotli_filter_module.so"
_CONFIGURATION = """
{modules}
daemon off;
master_process off;
pid {folder}/nginx.pid;
error_log {folder}/error.log warn;
events {{ worker_connections 512; }}
http {{
    access_log {folder}/access.log;
    default_type text/html;
    types {{ text/html html; image/png png; application/pdf pdf; text/plain txt; }}
    {temporary}
    {outside}
    server {{
        listen 127.0.0.1:{port}{secure};
        {server}
    }}
}}
"""


def has_brotli() -> bool:
    """Whether nginx can compress by brotli: Debian's libnginx-mod-http-brotli-filter."""
    return _BROTLI.exists()


@contextmanager
def nginx(folder: Path, server: str, *, outside: str = "", secure: bool = False) -> Iterator[str]:
    """The URL of an nginx with these directives in its `server` block, and those `outside` of it.

    `secure`: https, with what the directives name as ssl_certificate.
    """
    # Debian keeps it where only root's PATH looks.
    program = shutil.which("nginx") or shutil.which("nginx", path="/usr/sbin:/usr/local/sbin")
    if program is None:
        if os.environ.get("INTERLOOM_REQUIRE_NGINX"):
            pytest.fail("nginx is missing, and INTERLOOM_REQUIRE_NGINX is set")
        pytest.skip("nginx is not installed")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    places = ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    written = folder / "nginx.conf"
    written.write_text(
        _CONFIGURATION.format(
            modules=f"load_module {_BROTLI};" if has_brotli() else "",
            folder=folder,
            port=port,
            secure=" ssl" if secure else "",
            server=server,
            outside=outside,
            temporary=" ".join(f"{place}_temp_path {folder}/{place};" for place in places),
        )
    )
    running = subprocess.Popen([program, "-p", str(folder), "-c", str(written)], stderr=subprocess.PIPE)
    try:
        _wait(running, port)
        yield f"http{'s' * secure}://127.0.0.1:{port}"
    finally:
        running.terminate()
        running.communicate(timeout=30)


def _wait(running: subprocess.Popen[bytes], port: int) -> None:
    until = time.monotonic() + 30
    while running.poll() is None and time.monotonic() < until:
        try:
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
            return
        except OSError:
            time.sleep(0.02)
    running.kill()
    raise RuntimeError(f"nginx did not start: {running.communicate()[1].decode(errors='replace')}")
