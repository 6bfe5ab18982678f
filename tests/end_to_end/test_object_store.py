"""A corpus in an S3 bucket, on a server on loopback."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.end_to_end.builds import build, setting, shards
from tests.s3_server import Call, S3Server, Trouble, filesystem, s3_server

pytestmark = pytest.mark.slow
# Requests of a build that has nothing to do, at most: two a phase, and some.
NOTHING_TO_DO = 70


def _trouble(call: Call, number: int) -> Trouble | None:
    """Every now and then the server is too busy, broken, or slow."""
    if number % 20 == 7:
        return Trouble("503 SlowDown")
    if number % 53 == 11:
        return Trouble("500 InternalError")
    return Trouble(seconds=2.0) if number % 211 == 100 else None


@pytest.fixture(scope="module")
def server() -> Iterator[S3Server]:
    """A server on which s3://corpora is a bucket."""
    with s3_server("corpora") as running:
        yield running


def _objects(env: dict[str, str]) -> dict[str, tuple[str, str]]:
    """Every object: its hash and the time it was put."""
    found = filesystem(env).find("corpora", detail=True)
    return {name: (each["ETag"], str(each["LastModified"])) for name, each in found.items()}


def test_one_worker_puts_the_same_bytes_into_a_bucket_and_a_second_build_none(
    built: Path, spec: Path, server: S3Server
) -> None:
    """The undisturbed build had two workers and a local folder; this one's server fails and dawdles."""
    bucket = server.env
    server.trouble = _trouble
    url = "s3://corpora/some/prints"
    build(spec, url, *setting(resources__workers=1), **bucket).check()
    files = filesystem(bucket)
    version = files.cat_file("corpora/some/prints/latest").decode().strip()
    found = {
        f"{version}/{name.rsplit('/', 1)[1]}": files.cat_file(name)
        for name in files.glob(f"corpora/some/prints/versions/{version}/shards/*.arrow")
    }
    assert found == shards(built)
    told = json.loads(files.cat_file(f"corpora/some/prints/versions/{version}/manifest.json"))
    assert told["spec"]["resources"]["workers"] == told["run"]["cpus"] == 1
    before = _objects(bucket)
    assert not [name for name in before if ".probe-" in name or ".shared-" in name]
    server.trouble = lambda call, number: None
    server.log.clear()
    ended = build(spec, url, **bucket).check()
    assert len(server.log) < NOTHING_TO_DO, server.kinds()
    assert "nothing to do" in ended.out and _objects(bucket) == before


def test_a_bucket_that_is_not_there_is_one_line(spec: Path, server: S3Server) -> None:
    said = build(spec, "s3://nosuchbucket/prints", **server.env).failed(2)
    assert "output: cannot write to s3://nosuchbucket/prints" in said
