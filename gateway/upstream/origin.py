"""Origin: where an upstream listens (scheme, host, port) and how its Host field is written."""

from __future__ import annotations

from dataclasses import dataclass
from urllib.parse import urlsplit

_DEFAULT_PORTS = {"http": 80, "https": 443}


@dataclass(frozen=True, slots=True)
class Origin:
    """`host` is what is resolved, verified and sent as SNI; without brackets, in its ASCII form."""

    scheme: str
    host: str
    port: int

    @classmethod
    def parse(cls, base_url: str) -> Origin:
        """The origin of an absolute http or https URL; its path and query are the caller's affair."""
        parts = urlsplit(base_url)
        if parts.scheme not in _DEFAULT_PORTS or not parts.hostname:
            raise ValueError(f"base URL {base_url!r}: wanted http://host[:port] or https://host[:port]")
        if parts.username is not None or parts.password is not None:
            raise ValueError("base URL: credentials belong into a header, not into the URL")
        host = parts.hostname if parts.hostname.isascii() else parts.hostname.encode("idna").decode("ascii")
        port = parts.port if parts.port is not None else _DEFAULT_PORTS[parts.scheme]
        return cls(parts.scheme, host, port)

    @property
    def tls(self) -> bool:
        return self.scheme == "https"

    @property
    def host_field(self) -> bytes:
        """Value of the Host header: brackets around IPv6, no port where it is the scheme's own."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return (host if self.port == _DEFAULT_PORTS[self.scheme] else f"{host}:{self.port}").encode("ascii")
