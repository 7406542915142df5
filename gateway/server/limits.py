"""WireLimits: how long and how much a client may take before its connection is closed."""

from dataclasses import dataclass

MAY_BE_ZERO = frozenset(
    (
        "min_body_rate",
        "min_read_rate",
        "max_unsent_bytes",
        "max_body_bytes",
        "held_body_bytes",
        "drained_body_bytes",
        "max_connections_per_address",
    )
)


@dataclass(frozen=True, slots=True)
class WireLimits:
    """Bounds on one inbound connection. Times in seconds, sizes in bytes; 0 switches a bound off only where it says so.

    `min_body_rate` is the average rate (bytes a second) that a body has to keep once `body_timeout_s` have passed, so
    that one byte a second does not hold a connection for ever; 0 switches it off. `max_body_bytes` is the largest
    decoded-from-chunks request body, 0 for no bound. `held_body_bytes`: a body up to this length with a content-length
    is awaited in full before the application is started. `drained_body_bytes`: how much of a body that the application
    did not read is read and thrown away to keep the connection.

    `min_read_rate` is what a client has to take of an answer that waits for it, in bytes a second over
    `write_timeout_s`; 0: a single byte will do. `max_unsent_bytes` bounds what waits for all clients together, 0 for no
    bound: beyond it those who have most waiting are dropped.

    `max_connections_per_address` counts an IPv6 client by its /64; 0 switches it off. Peers in `uncapped` are not
    counted: by default loopback, since there it is a reverse proxy or a load tester, which speaks for many clients.

    `prefix` ("/ai") is taken off paths that begin with it; a proxy may have done so already.
    """

    header_timeout_s: float = 10.0
    body_timeout_s: float = 30.0
    min_body_rate: int = 240
    keep_alive_s: float = 75.0
    write_timeout_s: float = 60.0
    min_read_rate: int = 240
    max_unsent_bytes: int = 256 * 1024 * 1024
    linger_s: float = 2.0
    max_header_bytes: int = 65_536
    max_headers: int = 100
    max_target_bytes: int = 8_192
    max_body_bytes: int = 32 * 1024 * 1024
    held_body_bytes: int = 65_536
    drained_body_bytes: int = 262_144
    max_connections_per_address: int = 1_024
    prefix: str = ""
    uncapped: tuple[str, ...] = ("127.0.0.0/8", "::1/128")

    def __post_init__(self) -> None:
        """Refuse bounds that would refuse everything.

        Raises:
            ValueError: a time or size is not positive where it has to be.
        """
        for name in self.__slots__:
            value = getattr(self, name)
            if name in ("uncapped", "prefix"):
                continue
            if value < 0 or (value == 0 and name not in MAY_BE_ZERO):
                raise ValueError(f"WireLimits.{name} is {value}: it must be above zero")
