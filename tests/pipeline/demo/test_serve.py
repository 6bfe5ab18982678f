"""The demo's web server: mounts, types, conditional requests, and nothing outside its folders."""

import http.client
import os
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from pipeline.demo.serve import SiteServer, parse_mounts, serving

WHEN = 1_445_412_480  # Wed, 21 Oct 2015 07:28:00 GMT


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name, body in {"site/index.html": "<p>home", "site/sub/index.html": "<p>sub", "site/a b.png": "png",
                       "other/x.txt": "x", "other/deep/y.JPG": "jpg", "secret.txt": "secret"}.items():  # fmt: skip
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(body)
        os.utime(path, (WHEN, WHEN))
    (tmp_path / "site" / "leak.txt").symlink_to(tmp_path / "secret.txt")
    return tmp_path


@pytest.fixture
def server(folder: Path) -> Iterator[SiteServer]:
    with serving(parse_mounts([str(folder / "site"), f"/o/ther={folder / 'other'}"])) as running:
        yield running


def get(
    server: SiteServer, path: str, method: str = "GET", **headers: str
) -> tuple[int, http.client.HTTPMessage, bytes]:
    connection = http.client.HTTPConnection("127.0.0.1", server.server_port, timeout=10)
    try:
        connection.request(method, path, headers={name.replace("_", "-"): value for name, value in headers.items()})
        response = connection.getresponse()
        return response.status, response.headers, response.read()
    finally:
        connection.close()


@pytest.mark.parametrize(
    ("path", "content_type", "body"),
    [
        ("/", "text/html", b"<p>home"),
        ("/index.html?x=1", "text/html", b"<p>home"),
        ("/sub/", "text/html", b"<p>sub"),
        ("/a%20b.png", "image/png", b"png"),
        ("/o/ther/x.txt", "text/plain; charset=utf-8", b"x"),
        ("/o/ther/deep/y.JPG", "image/jpeg", b"jpg"),
    ],
)
def test_files(server: SiteServer, path: str, content_type: str, body: bytes) -> None:
    status, headers, found = get(server, path)
    assert (status, headers["Content-Type"], found) == (200, content_type, body)
    assert headers["Last-Modified"] == "Wed, 21 Oct 2015 07:28:00 GMT"
    assert get(server, path, "HEAD")[2] == b""


@pytest.mark.parametrize(
    "path", ["/none", "/o/ther/", "/../secret.txt", "/%2e%2e/secret.txt", "/leak.txt", "/o/ther/../../secret.txt", 
             "/%00", "//etc/passwd", "/%ff"]
)  # fmt: skip
def test_what_is_not_there_or_outside_is_404(server: SiteServer, path: str) -> None:
    status, _, body = get(server, path)
    assert (status, body) == (404, b"")


def test_a_folder_without_its_slash_is_redirected(server: SiteServer) -> None:
    for path in ("/sub", "/o/ther", "/o/ther/deep"):
        status, headers, _ = get(server, path)
        assert (status, headers["Location"]) == (301, path + "/")


def test_conditional_requests(server: SiteServer) -> None:
    for value, status in (
        ("Wed, 21 Oct 2015 07:28:00 GMT", 304),
        ("Wed, 21 Oct 2015 07:27:59 GMT", 200),
        ("nonsense", 200),
    ):
        assert get(server, "/", If_Modified_Since=value)[0] == status


def test_connections_are_kept(server: SiteServer) -> None:
    connection = http.client.HTTPConnection("127.0.0.1", server.server_port, timeout=10)
    ports = set()
    for path in ("/", "/none", "/sub", "/a%20b.png"):
        connection.request("GET", path)
        assert connection.sock is not None
        ports.add(connection.sock.getsockname()[1])
        connection.getresponse().read()
    connection.close()
    assert len(ports) == 1


def test_bad_mounts_are_one_clear_line(folder: Path) -> None:
    with pytest.raises(ValueError, match="no folder"):
        parse_mounts(["/a=/no/such/folder"])
    with pytest.raises(ValueError, match="already serves"):
        parse_mounts([f"/a={folder}", f"/a/={folder}"])


@pytest.mark.slow
def test_the_command(folder: Path) -> None:
    command = [sys.executable, "-m", "pipeline.demo.serve", "--port", "0", f"/s={folder / 'site'}"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        line = process.stdout.readline()
        assert line.startswith("serving http://127.0.0.1:")
        with urllib.request.urlopen(line.split()[1] + "/s/", timeout=10) as response:
            assert response.read() == b"<p>home"
    finally:
        process.terminate()
        process.communicate(timeout=10)
    failed = subprocess.run([*command[:-1], "/none"], capture_output=True, text=True, timeout=60)
    assert failed.returncode == 2
    assert failed.stderr.splitlines() == ["/none: no folder /none"]
