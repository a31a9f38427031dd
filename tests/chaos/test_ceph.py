"""Ceph starts, is the store that a run needs, and leaves nothing behind; only when asked for: it takes some 16 s."""

import os
from collections.abc import Iterator
from pathlib import Path

import boto3
import pytest

from variations.errors import CredentialsRefused, PreconditionFailed
from variations.storage import S3Options, Storage, close_clients, open_storage

from .ceph import Ceph, running_ceph
from .s3_proxy import Fault, S3Proxy, running_proxy

# It installs Debian's packages where they are missing, which nobody expects of `make test`; `make chaos` runs these.
pytestmark = pytest.mark.skipif("CHAOS_CEPH" not in os.environ, reason="CHAOS_CEPH=1 runs a real Ceph, as root")

BUCKET = "chaos"


def children() -> list[str]:
    """Return the commands of this process's children."""
    pids = [pid for path in Path("/proc/self/task").glob("*/children") for pid in path.read_text().split()]
    return [Path(f"/proc/{pid}/comm").read_text().strip() for pid in pids]


@pytest.fixture(scope="module")
def ceph() -> Iterator[Ceph]:
    """Run Ceph with a bucket, and look afterwards whether anything of it is left."""
    before = children()
    with running_ceph() as ceph:
        client = boto3.client(
            "s3",
            endpoint_url=ceph.endpoint,
            region_name="us-east-1",
            aws_access_key_id=ceph.access_key,
            aws_secret_access_key=ceph.secret_key,
        )
        client.create_bucket(Bucket=BUCKET)
        client.close()
        assert len(children()) == len(before) + 3
        yield ceph
        close_clients()
    assert children() == before


@pytest.fixture
def proxy(ceph: Ceph) -> Iterator[S3Proxy]:
    """Put a proxy in front of it."""
    with running_proxy(ceph.endpoint) as proxy:
        yield proxy
        close_clients()


@pytest.fixture(params=["direct", "proxied"])
def storage(request: pytest.FixtureRequest, ceph: Ceph, proxy: S3Proxy, monkeypatch: pytest.MonkeyPatch) -> Storage:
    """Reach an empty prefix, first without the proxy and then through it."""
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", ceph.access_key)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", ceph.secret_key)
    endpoint = ceph.endpoint if request.param == "direct" else proxy.url
    return open_storage(f"s3://{BUCKET}/{request.param}", s3=S3Options(endpoint_url=endpoint, multipart_bytes=5 << 20))


async def test_conditions_hold(storage: Storage) -> None:
    """Only the first of two writers wins."""
    first = await storage.put_if_absent("a b+c~ü", b"one")
    assert first is not None
    assert await storage.put_if_absent("a b+c~ü", b"two") is None
    assert await storage.get("a b+c~ü") == b"one"
    await storage.replace("a b+c~ü", b"three", etag=first.etag)
    with pytest.raises(PreconditionFailed):
        await storage.replace("a b+c~ü", b"four", etag=first.etag)
    assert [entry.key async for entry in storage.list()] == ["a b+c~ü"]
    await storage.delete("a b+c~ü")


async def test_parts_arrive(storage: Storage, tmp_path: Path) -> None:
    """Also through the proxy: Ceph compares every signature and checksum, which moto does not."""
    large = tmp_path / "large"
    large.write_bytes(os.urandom(20 << 20))
    assert (await storage.put("large", large)).etag.endswith("-4")
    assert await storage.get("large") == large.read_bytes()
    await storage.delete("large")


@pytest.mark.parametrize("storage", ["proxied"], indirect=True)
async def test_a_lost_reply_has_taken_effect(storage: Storage, proxy: S3Proxy) -> None:
    """The repeated request meets the first one's object."""
    proxy.set_faults(Fault("lost_reply", count=1, method="PUT"))
    assert await storage.put_if_absent("mine", b"one") is None
    assert await storage.get("mine") == b"one"
    await storage.delete("mine")


async def test_a_wrong_secret_is_refused(storage: Storage, monkeypatch: pytest.MonkeyPatch) -> None:
    """Which shows that signatures are compared at all."""
    close_clients()
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "another")
    with pytest.raises(CredentialsRefused):
        await storage.put("never", b"one")
    close_clients()
