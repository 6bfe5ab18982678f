"""A corpus in an S3 bucket, on a server on loopback."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import fsspec
import pytest
from moto.server import ThreadedMotoServer

from tests.end_to_end.builds import build, setting, shards

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def bucket(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    """Environment in which s3://corpora is a bucket."""
    server = ThreadedMotoServer("127.0.0.1", 0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    nowhere = str(tmp_path_factory.mktemp("aws") / "none")
    env = {
        "AWS_ENDPOINT_URL": f"http://{host}:{port}",
        "AWS_ACCESS_KEY_ID": "testing",
        "AWS_SECRET_ACCESS_KEY": "testing",
        "AWS_DEFAULT_REGION": "eu-west-1",
        "AWS_CONFIG_FILE": nowhere,
        "AWS_SHARED_CREDENTIALS_FILE": nowhere,
    }
    _filesystem(env).mkdir("corpora")
    yield env
    server.stop()


def _filesystem(env: dict[str, str]) -> fsspec.AbstractFileSystem:
    return fsspec.filesystem(
        "s3",
        key=env["AWS_ACCESS_KEY_ID"],
        secret=env["AWS_SECRET_ACCESS_KEY"],
        endpoint_url=env["AWS_ENDPOINT_URL"],
        client_kwargs={"region_name": env["AWS_DEFAULT_REGION"]},
        use_listings_cache=False,
        skip_instance_cache=True,
    )


def _objects(env: dict[str, str]) -> dict[str, tuple[str, str]]:
    """Every object: its hash and the time it was put."""
    found = _filesystem(env).find("corpora", detail=True)
    return {name: (each["ETag"], str(each["LastModified"])) for name, each in found.items()}


def test_one_worker_puts_the_same_bytes_into_a_bucket_and_a_second_build_none(
    built: Path, spec: Path, bucket: dict[str, str]
) -> None:
    """The undisturbed build had two workers and a local folder."""
    url = "s3://corpora/some/prints"
    build(spec, url, *setting(resources__workers=1), **bucket).check()
    files = _filesystem(bucket)
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
    ended = build(spec, url, **bucket).check()
    assert "nothing to do" in ended.out and _objects(bucket) == before


def test_a_bucket_that_is_not_there_is_one_line(spec: Path, bucket: dict[str, str]) -> None:
    said = build(spec, "s3://nosuchbucket/prints", **bucket).failed(2)
    assert "output: cannot write to s3://nosuchbucket/prints" in said
