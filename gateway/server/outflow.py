"""Outflow: what is written to one client, how long it takes to take it, and who waits for that."""

import asyncio
import fcntl
import struct
import termios

from gateway.server.sweeper import NEVER

SEPARATE_WRITE = 16_384  # bodies from this size on are not copied behind their head


class Outflow:
    """Writes to a connection's transport; `timeout_s` is how long a client may take nothing of what waits for it."""

    transport: asyncio.Transport

    def __init__(self, loop: asyncio.AbstractEventLoop, timeout_s: float) -> None:
        self.paused = False
        self.deadline = NEVER
        self._loop = loop
        self._timeout_s = timeout_s
        self._unsent = 0
        self._waiters: list[asyncio.Future[None]] = []

    def write(self, head: bytes, body: bytes) -> None:
        """Write head and body, either of which may be empty."""
        if len(body) < SEPARATE_WRITE:
            if head or body:
                self.transport.write(head + body)
        elif head:
            self.transport.writelines((head, body))
        else:
            self.transport.write(body)

    async def drained(self) -> None:
        """Return when the client has taken enough of what was written, or has left."""
        if self.paused:
            waiter = self._loop.create_future()
            self._waiters.append(waiter)
            await waiter

    def pause(self) -> None:
        """More was written than the client takes at once."""
        self.paused = True
        self.watch()

    def resume(self) -> None:
        """There is room again, or nobody to write to."""
        self.paused = False
        waiters, self._waiters = self._waiters, []
        for waiter in waiters:
            if not waiter.done():
                waiter.set_result(None)

    def watch(self) -> None:
        """From now on the client has to take something each `timeout_s`."""
        self._unsent = self._untaken()
        self.deadline = self._loop.time() + self._timeout_s

    @property
    def unsent(self) -> int:
        """Bytes that wait for the client, once they are many."""
        return self.transport.get_write_buffer_size() if self.paused else 0

    def is_stuck(self, least_rate: int) -> bool:
        """At the deadline: whether the client took too little (bytes a second). If not, it gets more time."""
        taken = self._unsent - self._untaken()
        if taken <= 0 or taken < least_rate * self._timeout_s:
            return True
        self.watch()
        return False

    def _untaken(self) -> int:
        """Bytes that the client has not acknowledged: ours, and the kernel's, which takes megabytes at a time and would
        hide a slow reader's progress for minutes."""
        unsent = self.transport.get_write_buffer_size()
        raw = self.transport.get_extra_info("socket")
        try:
            queued = fcntl.ioctl(raw.fileno(), termios.TIOCOUTQ, bytes(4))
        except (OSError, AttributeError):
            return unsent  # no socket, or a system that doesn't tell
        return unsent + int(struct.unpack("i", queued)[0])
