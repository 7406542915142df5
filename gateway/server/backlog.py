"""The kernel's queue of connections that nobody accepted yet: calls wait there unseen when they come on new ones."""

from __future__ import annotations

import socket
import sys
from collections.abc import Callable

#: uvloop (libuv from 1.45) accepts one connection a listener and turn of the loop. Duplicates of the one listening
#: socket take more of them, so that a busy loop, whose turns are long, doesn't leave connections waiting.
LISTENERS = 8

#: Where Linux's struct tcp_info has the length of a listening socket's queue (tcpi_unacked; include/uapi/linux/tcp.h).
_QUEUE = slice(24, 28)


def listeners(listener: socket.socket) -> list[socket.socket]:
    """The socket and its duplicates; each is closed on its own."""
    return [listener, *(listener.dup() for _ in range(LISTENERS - 1))]


class Backlog:
    """How long a new connection waits to be accepted. `opened` counts the connections that were."""

    def __init__(self, listener: socket.socket, opened: Callable[[], int]) -> None:
        self._listener = listener
        self._opened = opened
        self._before = opened()

    def wait_s(self, elapsed_s: float) -> float:
        """By the queue's length now and what was accepted since the last time, `elapsed_s` ago."""
        before, self._before = self._before, self._opened()
        waiting = self.length()
        return waiting * elapsed_s / max(1, self._before - before) if waiting else 0.0

    def length(self) -> int:
        """Connections in the queue; 0 where the system doesn't tell."""
        if not sys.platform.startswith("linux"):
            return 0
        try:
            return int.from_bytes(self._listener.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 32)[_QUEUE], "little")
        except OSError:
            return 0  # closed
