"""Server-side request forgery: nothing private is ever connected to, however it is written or reached."""

import socket
from collections.abc import Iterator
from ipaddress import ip_address
from typing import Any

import pytest
from aiohttp.abc import ResolveResult

from stages.web import addresses
from stages.web.addresses import AddressRefused, PublicResolver, is_public, public_socket
from stages.web.client import fetch
from stages.web.politeness import HostMemory
from stages.web.settings import CrawlSettings
from tests.servers import Site, answer, redirect, routes

SETTINGS = CrawlSettings(per_host_delay=0, retries=0, connect_timeout=2, total_timeout=4)


def fetch_one(url: str, settings: CrawlSettings = SETTINGS) -> dict[str, Any]:
    (table,) = fetch([url], settings, kind="page", max_bytes=10_000, memory=HostMemory())
    (row,) = table.to_pylist()
    return row


@pytest.mark.parametrize(
    "address",
    [
        "0.0.0.0", "10.1.2.3", "100.64.0.1", "100.100.100.200", "127.0.0.1", "127.255.0.1", "169.254.169.254",
        "172.16.0.1", "172.31.255.255", "192.0.0.192", "192.168.1.1", "198.18.0.1", "224.0.0.1", "240.0.0.1",
        "255.255.255.255", "168.63.129.16", "::", "::1", "::ffff:127.0.0.1", "::ffff:10.0.0.1", "::7f00:1", "fe80::1",
        "fc00::1", "fd00:ec2::254", "fec0::1", "ff02::1", "2001::1", "2001:db8::1", "2002:7f00:1::", "64:ff9b::7f00:1",
        "64:ff9b:1::1", "100::1",
    ],
)  # fmt: skip
def test_private_addresses(address: str) -> None:
    assert not is_public(ip_address(address))


@pytest.mark.parametrize(
    "address",
    ["8.8.8.8", "172.15.0.1", "172.32.0.1", "100.63.0.1", "192.0.1.1", "2606:4700::1111", "::ffff:8.8.8.8",
     "2002:808:808::", "64:ff9b::808:808"],
)  # fmt: skip
def test_public_addresses(address: str) -> None:
    assert is_public(ip_address(address))


@pytest.fixture
def site() -> Iterator[Site]:
    with routes({"/": answer(), "/robots.txt": answer(404)}) as running:
        yield running


@pytest.mark.parametrize(
    "host",
    ["127.0.0.1", "2130706433", "0x7f000001", "017700000001", "0x7f.1", "127.1", "[::ffff:127.0.0.1]", "localhost"],
)
def test_loopback_is_refused_in_every_spelling(site: Site, host: str) -> None:
    port = site.url.rpartition(":")[2]
    row = fetch_one(f"http://{host}:{port}/")
    assert (row["status"], row["reason"], row["retryable"]) == ("refused", "private_address", False)
    assert row["body"] is None
    assert site.log == []


def test_the_setting_allows_private_networks(site: Site) -> None:
    settings = SETTINGS.model_copy(update={"allow_private_networks": True})
    port = site.url.rpartition(":")[2]
    assert fetch_one(f"http://2130706433:{port}/", settings)["status"] == "ok"


@pytest.fixture
def only_127_0_0_1_is_public(monkeypatch: pytest.MonkeyPatch) -> None:
    """127.0.0.1 plays the public web, so that a public site can point at a private one."""
    monkeypatch.setattr(addresses, "is_public", lambda address: str(address) == "127.0.0.1")


@pytest.mark.usefixtures("only_127_0_0_1_is_public")
@pytest.mark.parametrize("host", ["127.0.0.2", "0x7f.0.0.2", "[::ffff:7f00:2]"])
def test_a_redirect_to_a_private_address_is_refused(host: str) -> None:
    with routes({"/secret": answer(body=b"key")}, host="127.0.0.2") as inside:
        port = inside.url.rpartition(":")[2]
        with routes({"/": redirect(f"http://{host}:{port}/secret"), "/plain": answer()}) as outside:
            assert fetch_one(outside.url + "/plain")["status"] == "ok"
            row = fetch_one(outside.url + "/")
        assert (row["status"], row["reason"], row["http_status"]) == ("refused", "private_address", 302)
        assert inside.log == []


@pytest.mark.usefixtures("only_127_0_0_1_is_public")
def test_robots_txt_may_not_redirect_to_a_private_address_either() -> None:
    with routes({"/robots.txt": answer(body=b"")}, host="127.0.0.2") as inside:
        with routes({"/": answer(), "/robots.txt": redirect(inside.url + "/robots.txt")}) as outside:
            assert fetch_one(outside.url + "/")["reason"] == "private_address"
        assert inside.log == []


def resolves_to(monkeypatch: pytest.MonkeyPatch, *hosts: str) -> None:
    def getaddrinfo(host: str, port: int, *args: object, **kwargs: object) -> list[Any]:
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (each, port)) for each in hosts]

    monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)


@pytest.mark.usefixtures("only_127_0_0_1_is_public")
def test_a_name_with_one_private_address_is_refused(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    port = site.url.rpartition(":")[2]
    resolves_to(monkeypatch, "127.0.0.1")
    assert fetch_one(f"http://name.test:{port}/")["status"] == "ok"
    asked = len(site.log)
    resolves_to(monkeypatch, "127.0.0.1", "127.0.0.2")
    assert fetch_one(f"http://name.test:{port}/")["reason"] == "private_address"
    assert len(site.log) == asked


@pytest.mark.usefixtures("only_127_0_0_1_is_public")
def test_the_address_connected_to_is_checked_whatever_resolution_said(monkeypatch: pytest.MonkeyPatch) -> None:
    async def lie(self: PublicResolver, host: str, port: int = 0, family: int = 0) -> list[ResolveResult]:
        return [ResolveResult(hostname=host, host="127.0.0.2", port=port, family=socket.AF_INET, proto=6, flags=0)]

    monkeypatch.setattr(PublicResolver, "resolve", lie)
    with routes({"/": answer()}, host="127.0.0.2") as inside:
        port = inside.url.rpartition(":")[2]
        assert fetch_one(f"http://rebind.test:{port}/")["reason"] == "private_address"
        assert inside.log == []


def test_no_socket_is_made_for_a_private_address() -> None:
    for family, destination in ((socket.AF_INET, ("10.0.0.1", 80)), (socket.AF_INET6, ("fe80::1%2", 80, 0, 2))):
        with pytest.raises(AddressRefused):
            public_socket((family, socket.SOCK_STREAM, 6, "", destination))
    public_socket((socket.AF_INET, socket.SOCK_STREAM, 6, "", ("8.8.8.8", 80))).close()
