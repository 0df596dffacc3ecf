"""The URL of this service as its callers see it (`arc.v1` 1.8): configured, told by a trusted proxy, or from `Host`."""

from __future__ import annotations

import re
from typing import Final

from quart import Request

from arc_es.http.connection import header_of, prefix_of

HOST: Final = re.compile(r"(?:[A-Za-z0-9._~-]{1,255}|\[[0-9A-Fa-f:.]{2,45}\])(?::[0-9]{1,5})?")
"""A host that can stand in a URL: a name, an IPv4 or a bracketed IPv6 address, and a port. Nothing that needs quoting:
what a caller sends as `Host` comes back to it inside URLs, and no further."""
_PREFIX: Final = re.compile(r"(?:/[A-Za-z0-9._~-]{1,255})*/?")
_SCHEMES: Final = ("http", "https")


def base_of(request: Request, *, trust_forwarded: bool) -> str:
    """`{base}` as the request shows it: scheme, host, and the prefix that it used.

    trust_forwarded: whether `X-Forwarded-Proto`, `-Host` and `-Prefix` count; a value that cannot stand in a URL does
    not. Of a list the last counts, which the nearest proxy wrote.
    """
    scheme, host, prefix = request.scheme, header_of(request, b"host") or "", ""
    if trust_forwarded:
        scheme = _forwarded(request, b"x-forwarded-proto").lower()
        scheme = scheme if scheme in _SCHEMES else request.scheme
        forwarded = _forwarded(request, b"x-forwarded-host")
        host = forwarded if HOST.fullmatch(forwarded) else host
        prefix = _forwarded(request, b"x-forwarded-prefix")
        prefix = prefix.rstrip("/") if _PREFIX.fullmatch(prefix) else ""
    if not HOST.fullmatch(host):
        host = _own_address(request)
    return f"{scheme}://{host}{prefix}{prefix_of(request)}"


def _forwarded(request: Request, name: bytes) -> str:
    return (header_of(request, name) or "").rpartition(",")[2].strip()


def _own_address(request: Request) -> str:
    """Where the connection came in; HTTP/1.0 need not send a `Host`, and HTTP/1.1 may send an empty one."""
    address, port = request.scope["server"] or ("127.0.0.1", None)
    shown = f"[{address}]" if ":" in address else address
    return shown if port is None else f"{shown}:{port}"
