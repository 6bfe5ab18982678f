"""Where a fetch may connect to: public addresses only, checked on the address that is connected to.

A name that resolves to a private address, a redirect to one, or an address written in an unusual base would
otherwise turn a crawler into a way into the network it runs in (server-side request forgery).
"""

from __future__ import annotations

import socket
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address
from urllib.parse import urlsplit

from aiohttp.abc import AbstractResolver, ResolveResult
from aiohttp.connector import AddrInfoType
from aiohttp.resolver import ThreadedResolver

# Not globally reachable by the IANA special-purpose registries, multicast and reserved space; listed here
# because `ipaddress.is_global` changes between Python patch releases.
_REFUSED_V4 = tuple(
    IPv4Network(network)
    for network in (
        "0.0.0.0/8",
        "10.0.0.0/8",
        "100.64.0.0/10",  # carrier-grade NAT; 100.100.100.200 is a metadata service
        "127.0.0.0/8",
        "168.63.129.16/32",  # a cloud's host agent, at an address that looks public
        "169.254.0.0/16",  # link-local; 169.254.169.254 is the usual metadata service
        "172.16.0.0/12",
        "192.0.0.0/24",
        "192.0.2.0/24",
        "192.88.99.0/24",
        "192.168.0.0/16",
        "198.18.0.0/15",
        "198.51.100.0/24",
        "203.0.113.0/24",
        "224.0.0.0/4",
        "240.0.0.0/4",
    )
)
_GLOBAL_UNICAST = IPv6Network("2000::/3")  # all that is allocated for public use
_REFUSED_V6 = tuple(
    IPv6Network(network)
    for network in (
        "2001::/23",  # protocol assignments, Teredo among them: the address inside is of no one's choosing
        "2001:db8::/32",
        "3fff::/20",
    )
)
_NAT64 = IPv6Network("64:ff9b::/96")
_6TO4 = IPv6Network("2002::/16")


class AddressRefused(OSError):
    """A host has an address that is not public; the message names the address."""


def is_public(address: IPv4Address | IPv6Address) -> bool:
    """Whether an address is globally reachable unicast; IPv6 forms that carry an IPv4 address are judged by it."""
    if isinstance(address, IPv4Address):
        return not any(address in network for network in _REFUSED_V4)
    if address.ipv4_mapped is not None:
        return is_public(address.ipv4_mapped)
    if address in _NAT64:
        return is_public(IPv4Address(int(address) & 0xFFFFFFFF))
    if address in _6TO4:
        return is_public(IPv4Address(int(address) >> 80 & 0xFFFFFFFF))
    return address in _GLOBAL_UNICAST and not any(address in network for network in _REFUSED_V6)


def require_public(host: str) -> None:
    """AddressRefused when `host`, an address as text (an IPv6 zone is ignored), is not public."""
    if not is_public(ip_address(host.partition("%")[0])):
        raise AddressRefused(f"{host} is not a public address")


def require_public_literal(url: str) -> None:
    """AddressRefused when the host of a canonical URL is itself an address and not a public one."""
    host = urlsplit(url).hostname or ""
    try:
        ip_address(host)
    except ValueError:
        return  # a name: judged when it is resolved
    require_public(host)


class PublicResolver(AbstractResolver):
    """Name resolution that refuses a name as soon as one of its addresses is not public."""

    def __init__(self) -> None:
        self._resolver = ThreadedResolver()

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_UNSPEC
    ) -> list[ResolveResult]:
        """Addresses of a name; AddressRefused for a private one, OSError when it does not resolve."""
        results = await self._resolver.resolve(host, port, family)
        for result in results:
            require_public(result["host"])
        return results

    async def close(self) -> None:
        await self._resolver.close()


def public_socket(address: AddrInfoType) -> socket.socket:
    """A socket for an address about to be connected to; AddressRefused when it is not public.

    The last check before the connection is made: it sees what neither a name server nor a cache can change.
    """
    family, kind, protocol, _, destination = address
    require_public(str(destination[0]))
    return socket.socket(family, kind, protocol)
