"""Which addresses a device may download from and upload to.

An order names addresses. Without a limit, it could make a device send requests to any machine of
its network, and tell by the answer what runs there.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterable
from urllib.parse import SplitResult, urlsplit

from edge.protocol.errors import ProtocolError

_S3 = re.compile(r"([a-z0-9.-]+\.)?s3[.-]([a-z0-9-]+\.)*amazonaws\.com(\.cn)?")
_LONGEST = 8192


class Addresses:
    """The addresses of one device: https, and http on loopback.

    Args:
        prefixes: Beginnings of addresses, such as ``https://BUCKET.s3.eu-west-1.amazonaws.com/``.
            None at all stands for Amazon S3 as a whole.
        loopback: Whether this machine's own ports are allowed, as with a local cloud.

    """

    def __init__(self, prefixes: Iterable[str] = (), *, loopback: bool = False) -> None:
        self._prefixes = [urlsplit(prefix) for prefix in prefixes]
        self._loopback = loopback

    def check(self, address: str) -> None:
        """Raise ProtocolError ``foreign`` for an address that may not be used.

        The text does not say which: nothing of this device's network is told.
        """
        if not self._allows(address):
            raise ProtocolError("foreign", "The address is not one that this device may use.")

    def _allows(self, address: str) -> bool:
        if len(address) > _LONGEST or not address.isascii() or not address.isprintable():
            return False
        try:
            given = urlsplit(address)
            host, _ = given.hostname or "", given.port
        except ValueError:
            return False
        # A user name before the host would hide it from a reader, and dots would leave a prefix.
        if not host or "@" in given.netloc or "\\" in address or _leaves(given.path):
            return False
        if is_loopback(host) and given.scheme in ("http", "https"):
            return self._loopback or any(_same_host(given, prefix) for prefix in self._prefixes)
        if given.scheme != "https":
            return False
        if not self._prefixes:
            return given.port in (None, 443) and _S3.fullmatch(host) is not None
        return any(_begins(given, prefix) for prefix in self._prefixes)


def is_loopback(host: str) -> bool:
    """Whether a host is this machine itself."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _leaves(path: str) -> bool:
    parts = path.lower().replace("%2e", ".").replace("%2f", "/").split("/")
    return ".." in parts or "." in parts


def _same_host(given: SplitResult, prefix: SplitResult) -> bool:
    """Whether a loopback address is meant; ports of a local cloud change at each start."""
    return is_loopback(prefix.hostname or "") and prefix.port in (None, given.port)


def _begins(given: SplitResult, prefix: SplitResult) -> bool:
    return (
        prefix.scheme == "https"
        and given.hostname == prefix.hostname
        and (given.port or 443) == (prefix.port or 443)
        and given.path.startswith(prefix.path or "/")
    )
