"""Peers: which networks a client's address is in, and how many connections each address has."""

from ipaddress import IPv4Address, IPv6Address, IPv6Network, ip_address, ip_network


class Networks:
    """A set of networks in CIDR notation ("10.0.0.0/8", "::1"), asked by address.

    Raises:
        ValueError: one of them is not an address or network.
    """

    remembered_addresses = 4_096

    def __init__(self, networks: tuple[str, ...]) -> None:
        self._networks = [ip_network(network, strict=False) for network in networks]
        self._known: dict[str, bool] = {}

    def __contains__(self, host: str) -> bool:
        known = self._known.get(host)
        if known is None:
            if len(self._known) >= self.remembered_addresses:
                self._known.clear()
            address = _address(host)
            known = address is not None and any(address in network for network in self._networks)
            self._known[host] = known
        return known


class Peers:
    """Counts connections by address (IPv6: by /64, which is what one client gets).

    `most`: connections that one address may have, 0 for no bound; addresses in `uncapped` may have any number.
    """

    def __init__(self, most: int, uncapped: tuple[str, ...]) -> None:
        self.most = most
        self._uncapped = Networks(uncapped)
        self._counts: dict[str, int] = {}

    def enter(self, host: str) -> tuple[str, bool]:
        """Count a connection; gives the key to `leave` with, and whether the connection is allowed."""
        key = _network(host) if ":" in host else host
        count = self._counts[key] = self._counts.get(key, 0) + 1
        return key, self.most == 0 or count <= self.most or host in self._uncapped

    def leave(self, key: str) -> None:
        """Uncount a connection."""
        count = self._counts[key] - 1
        if count:
            self._counts[key] = count
        else:
            del self._counts[key]


def _address(host: str) -> IPv4Address | IPv6Address | None:
    """The address, an IPv4 one in IPv6 clothes unwrapped; None if it is none (a Unix socket's name)."""
    try:
        address = ip_address(host.partition("%")[0])
    except ValueError:
        return None
    mapped = address.ipv4_mapped if isinstance(address, IPv6Address) else None
    return address if mapped is None else mapped


def _network(host: str) -> str:
    address = _address(host)
    return str(IPv6Network((address, 64), strict=False)) if isinstance(address, IPv6Address) else str(address)
