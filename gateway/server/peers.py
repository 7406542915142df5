"""Peers: how many connections each client address has."""

from ipaddress import IPv6Network, ip_address, ip_network


class Peers:
    """Counts connections by address (IPv6: by /64, which is what one client gets).

    `most`: connections that one address may have, 0 for no bound; addresses in the networks `uncapped` may have any
    number.
    """

    def __init__(self, most: int, uncapped: tuple[str, ...]) -> None:
        self.most = most
        self._uncapped = [ip_network(network) for network in uncapped]
        self._counts: dict[str, int] = {}

    def enter(self, host: str) -> tuple[str, bool]:
        """Count a connection; gives the key to `leave` with, and whether it is within the bound."""
        key = host if ":" not in host else _network(host)
        count = self._counts[key] = self._counts.get(key, 0) + 1
        return key, self.most == 0 or count <= self.most or self._is_uncapped(host)

    def leave(self, key: str) -> None:
        """Uncount a connection."""
        count = self._counts[key] - 1
        if count:
            self._counts[key] = count
        else:
            del self._counts[key]

    def _is_uncapped(self, host: str) -> bool:
        address = ip_address(host.partition("%")[0])
        mapped = getattr(address, "ipv4_mapped", None)
        if mapped is not None:
            address = mapped
        return any(address in network for network in self._uncapped)


def _network(host: str) -> str:
    """The /64 of an IPv6 address; an IPv4 address in IPv6 clothes stays what it is."""
    bare = host.partition("%")[0]
    mapped = getattr(ip_address(bare), "ipv4_mapped", None)
    return str(mapped) if mapped is not None else str(IPv6Network((bare, 64), strict=False))
