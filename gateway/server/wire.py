"""Wire: what all connections of one server share, so that no connection and no request builds it again."""

import asyncio
from typing import Any

from uvicorn.config import Config
from uvicorn.server import ServerState

from gateway.server.exchange import Application, Direct, TurnAway
from gateway.server.head import HeadReader
from gateway.server.limits import WireLimits
from gateway.server.peers import Peers
from gateway.server.response import ResponseHeads
from gateway.server.sweeper import Sweeper

SWEEPS_PER_TIMEOUT = 8
LONGEST_INTERVAL_S = 0.5


class Wire:
    """Application, limits and shared parts of one running server."""

    def __init__(
        self,
        config: Config,
        server_state: ServerState,
        app_state: dict[str, Any],
        limits: WireLimits,
        loop: asyncio.AbstractEventLoop,
    ) -> None:
        self.app: Application = config.loaded_app
        # Not where the server adds to the path, or other middleware stands between.
        self.direct: Direct | None = None if config.root_path else getattr(self.app, "direct", None)
        # Answers what is not to come in; the application says whether there is such a thing.
        self.turn_away: TurnAway | None = getattr(self.app, "turn_away", None)
        self.opened = 0  # connections so far
        self.limits = limits
        self.server_state = server_state
        self.connections: set[Any] = server_state.connections  # uvicorn types it as its own protocols
        self.app_state = app_state
        self.root_path = config.root_path
        self.limit_concurrency = config.limit_concurrency
        self.asgi = {"version": config.asgi_version, "spec_version": "2.3"}
        self.reader = HeadReader(
            limits.max_headers, limits.max_target_bytes, limits.max_body_bytes, limits.prefix.encode()
        )
        self.responses = ResponseHeads()
        self.peers = Peers(limits.max_connections_per_address, limits.uncapped)
        shortest_s = min(limits.header_timeout_s, limits.body_timeout_s, limits.keep_alive_s)
        shortest_s = min(shortest_s, limits.write_timeout_s, limits.linger_s)
        self.sweeper = Sweeper(loop, min(shortest_s / SWEEPS_PER_TIMEOUT, LONGEST_INTERVAL_S), limits.max_unsent_bytes)

    @property
    def stopping(self) -> bool:
        """Connections that are opened now close after their first answer."""
        return getattr(self.server_state, "tidegate_stopping", False)
