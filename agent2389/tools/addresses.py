"""Which network addresses a tool may reach: a URL that a model wrote becomes checked, pinned addresses.

A model that follows injected text asks for ``http://169.254.169.254/`` and for everything that is
spelled differently and means the same. So there is one path from text to socket: the URL is taken
apart once, its host is resolved once, every resolved address is judged, and the connection goes to
an address judged here, never to a name that could be resolved again.
Networks: IANA special-purpose address registries (RFC 6890 and its updates).
"""

import asyncio
import fnmatch
import ipaddress
import re
import socket
import unicodedata
from collections.abc import Awaitable, Callable, Sequence

import httpx2
import msgspec

from agent2389.errors import Agent2389Error, ConfigurationError

MAX_URL = 2048
RESOLVE_SECONDS = 5.0
MAX_ADDRESSES = 4
"""How many of a name's addresses are tried when the first does not answer."""

IPAddress = ipaddress.IPv4Address | ipaddress.IPv6Address
IPNetwork = ipaddress.IPv4Network | ipaddress.IPv6Network
Resolve = Callable[[str, int], Awaitable[Sequence[str]]]
"""Host name and port → addresses as text. Raises ``OSError``."""

# Own tables beside ``ipaddress.is_global``, whose answers differ between Python releases.
_NOT_GLOBAL_4 = tuple(
    ipaddress.IPv4Network(text)
    for text in (
        "0.0.0.0/8", "10.0.0.0/8", "100.64.0.0/10", "127.0.0.0/8", "169.254.0.0/16", "172.16.0.0/12",
        "192.0.0.0/24", "192.0.2.0/24", "192.88.99.0/24", "192.168.0.0/16", "198.18.0.0/15",
        "198.51.100.0/24", "203.0.113.0/24", "224.0.0.0/4", "240.0.0.0/4",
    )
)  # fmt: skip
_GLOBAL_6 = ipaddress.IPv6Network("2000::/3")
_NOT_GLOBAL_6 = tuple(
    ipaddress.IPv6Network(text) for text in ("2001::/23", "2001:db8::/32", "2002::/16", "3fff::/20")
)
_NAT64 = ipaddress.IPv6Network("64:ff9b::/96")
_ISATAP = {0x00005EFE, 0x02005EFE}
_NUMERIC = re.compile(r"(?:0x[0-9a-f]*|[0-9]+)")
_LABEL = re.compile(r"(?!-)[a-z0-9_-]{1,63}(?<!-)")


class AddressRefused(Agent2389Error):
    """The URL or address may not be reached; the message is for the model and names no resolved address."""


class Exemption(msgspec.Struct, frozen=True):
    """One entry of ``allow_private``: a network or a host name, with or without one port."""

    network: IPNetwork | None = None
    host: str | None = None
    port: int | None = None

    def covers(self, host: str, address: IPAddress, port: int) -> bool:
        """Whether the entry lets ``address`` be reached although it is not global."""
        if self.port is not None and self.port != port:
            return False
        if self.host is not None:
            return self.host == host
        return self.network is not None and address in self.network


class AddressPolicy(msgspec.Struct, frozen=True, kw_only=True):
    """What may be reached. ``hosts`` are shell patterns; empty means every host."""

    schemes: tuple[str, ...] = ("https", "http")
    ports: tuple[int, ...] = (80, 443)
    hosts: tuple[str, ...] = ()
    exemptions: tuple[Exemption, ...] = ()


class Target(msgspec.Struct, frozen=True, kw_only=True):
    """A URL that may be requested: connect to one of ``addresses``, speak to ``host``."""

    url: str
    scheme: str
    host: str
    port: int
    addresses: tuple[str, ...]

    @property
    def origin(self) -> tuple[str, str, int]:
        """Scheme, host and port."""
        return self.scheme, self.host, self.port


def policy_of(
    *, allow_private: Sequence[str] = (), ports: Sequence[int] = (80, 443), hosts: Sequence[str] = ()
) -> AddressPolicy:
    """A policy from configured texts. Raises ``ConfigurationError``."""
    return AddressPolicy(
        ports=tuple(ports),
        hosts=tuple(host.lower() for host in hosts),
        exemptions=tuple(exemption_of(text) for text in allow_private),
    )


def exemption_of(text: str) -> Exemption:
    """``10.1.0.0/16``, ``127.0.0.1:8080``, ``[::1]:8080`` or ``intranet.example:8443``."""
    rest, port = text.strip().lower(), None
    if found := re.fullmatch(r"(\[[^\]]*\]|[^:]*):([0-9]{1,5})", rest):
        rest, port = found[1], int(found[2])
    if rest.startswith("[") and rest.endswith("]"):
        rest = rest[1:-1]
    try:
        return Exemption(network=ipaddress.ip_network(rest), port=port)
    except ValueError:
        pass
    try:
        return Exemption(host=canonical_host(rest), port=port)
    except AddressRefused:
        raise ConfigurationError(
            f"allow_private: {text!r} is no network, address or host name",
            hint='write "10.1.0.0/16", "127.0.0.1:8080" or "intranet.example"',
        ) from None


def canonical_host(host: str) -> str:
    """The one spelling of a host: lower case, A-labels, no trailing dot, addresses in their usual form.

    Raises ``AddressRefused`` for shorthand addresses (``127.1``, ``0x7f000001``, ``2130706433``)
    that some resolvers read as addresses and others as names.
    """
    host = unicodedata.normalize("NFKC", host).lower().replace("\u3002", ".")
    if ":" in host:
        return str(_parsed(host, "the address is no valid IPv6 address"))
    host = host.removesuffix(".")
    if not host.isascii():
        try:
            host = httpx2.URL(f"http://{host}/").raw_host.decode("ascii")
        except (httpx2.InvalidURL, UnicodeError):
            raise AddressRefused("the host is no valid international name") from None
    labels = host.split(".")
    if _NUMERIC.fullmatch(labels[-1]):
        return str(_parsed(host, "an address must be written as four plain decimal numbers"))
    if len(host) > 253 or not all(_LABEL.fullmatch(label) for label in labels):
        raise AddressRefused("the host is no valid name")
    return host


def _parsed(text: str, reason: str) -> IPAddress:
    if "%" in text:
        raise AddressRefused("an address with a zone is not reachable from here")
    try:
        return ipaddress.ip_address(text)
    except ValueError:
        raise AddressRefused(reason) from None


def unwrapped(address: IPAddress) -> IPAddress:
    """The IPv4 address that an IPv6 address stands for (mapped, NAT64), else the address itself."""
    if isinstance(address, ipaddress.IPv6Address):
        if address.ipv4_mapped is not None:
            return address.ipv4_mapped
        if address in _NAT64:
            return ipaddress.IPv4Address(int(address) & 0xFFFFFFFF)
    return address


def is_public(address: IPAddress) -> bool:
    """Whether ``address`` is one of the global Internet, whatever it is wrapped in."""
    inner = unwrapped(address)
    if isinstance(inner, ipaddress.IPv4Address):
        return inner.is_global and not any(inner in network for network in _NOT_GLOBAL_4)
    if inner not in _GLOBAL_6 or any(inner in network for network in _NOT_GLOBAL_6):
        return False
    if int(inner) >> 32 & 0xFFFFFFFF in _ISATAP:
        return is_public(ipaddress.IPv4Address(int(inner) & 0xFFFFFFFF))
    return inner.is_global


async def resolve_with_system(host: str, port: int) -> Sequence[str]:
    """The system's resolver, in a thread."""
    found = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return [str(item[4][0]) for item in found]


async def check(url: str, policy: AddressPolicy, resolve: Resolve = resolve_with_system) -> Target:
    """The target behind ``url``. Resolves its host exactly once.

    Raises ``AddressRefused`` when any of its addresses may not be reached: a name that has a public
    and a private address is an attack more often than a mistake.
    """
    parts, scheme, host, port = _taken_apart(url, policy)
    addresses = await _resolved(host, port, resolve)
    for address in addresses:
        _judge(host, address, port, policy)
    # The fragment never goes to a server; the rest is what was checked.
    return Target(
        url=str(parts.copy_with(fragment=None)),
        scheme=scheme,
        host=host,
        port=port,
        addresses=tuple(dict.fromkeys(str(address) for address in addresses))[:MAX_ADDRESSES],
    )


def _judge(host: str, address: IPAddress, port: int, policy: AddressPolicy) -> None:
    inner = unwrapped(address)
    covering = [item for item in policy.exemptions if item.covers(host, inner, port)]
    if not is_public(address) and not covering:
        raise AddressRefused("the host is not on the public Internet")
    if port not in policy.ports and not any(item.port == port for item in covering):
        raise AddressRefused(f"port {port} is not allowed")


def _taken_apart(url: str, policy: AddressPolicy) -> tuple[httpx2.URL, str, str, int]:
    if len(url) > MAX_URL:
        raise AddressRefused(f"the URL is longer than {MAX_URL} characters")
    if any(ord(char) <= 0x20 or ord(char) == 0x7F for char in url) or "\\" in url:
        raise AddressRefused("the URL contains a space, a control character or a backslash")
    try:
        parts = httpx2.URL(url)
        scheme, host, port = parts.scheme, parts.host, parts.port
    except (httpx2.InvalidURL, UnicodeError, ValueError):
        raise AddressRefused("this is no valid URL") from None
    if scheme not in policy.schemes:
        raise AddressRefused(
            "the URL must begin with " + " or ".join(f"{name}://" for name in policy.schemes)
        )
    if parts.userinfo or "@" in url.split("//", 1)[-1].split("/", 1)[0]:
        raise AddressRefused("the URL must not hold a user name or password")
    if not host:
        raise AddressRefused("the URL names no host")
    host = canonical_host(host)
    if policy.hosts and not any(fnmatch.fnmatchcase(host, pattern) for pattern in policy.hosts):
        raise AddressRefused("the host is not on this agent's list of allowed hosts")
    if port is None:
        port = 443 if scheme == "https" else 80
    if port not in policy.ports and all(item.port != port for item in policy.exemptions):
        raise AddressRefused(f"port {port} is not allowed")
    return parts, scheme, host, port


async def _resolved(host: str, port: int, resolve: Resolve) -> list[IPAddress]:
    try:
        return [ipaddress.ip_address(host)]
    except ValueError:
        pass
    try:
        async with asyncio.timeout(RESOLVE_SECONDS):
            found = await resolve(host, port)
    except (OSError, TimeoutError, UnicodeError):
        raise AddressRefused("the host's name cannot be resolved") from None
    if not found:
        raise AddressRefused("the host's name cannot be resolved")
    return [_parsed(text, "the host's name cannot be resolved") for text in found]
