"""Who waits, by id, client and band; and how often each client came in this hour."""

from __future__ import annotations

from bisect import insort
from collections.abc import Iterable, Iterator

from gateway.scheduler.lane import SLACK, Entry
from gateway.scheduler.settings import BANDS, HOUR_NS, priority

#: A client's fairness changes with every so many requests.
STEP = 10
MOST_STEPS = 10


class Roll:
    """All entries of the queue. Bounds are the scheduler's business."""

    def __init__(self) -> None:
        self.entries: dict[str, Entry] = {}
        self._clients: dict[str, list[Entry]] = {}  # as they came; those that left stay for a while
        self._of_client: dict[str, int] = {}
        self._arrivals: list[list[Entry]] = [[] for _ in range(BANDS)]  # by seq; those that left stay for a while
        self._counts = [0] * BANDS
        self._requests: dict[str, int] = {}
        self._hour = 0
        self.body_bytes = 0
        self._bytes_of: dict[str, int] = {}  # by client; only of those with long bodies

    def __len__(self) -> int:
        return len(self.entries)

    def number(self, client: str) -> int:
        """How many calls of a client wait."""
        return self._of_client.get(client, 0)

    def bytes_of(self, client: str) -> int:
        """Of the long bodies of its waiting calls."""
        return self._bytes_of.get(client, 0)

    def _weigh(self, client: str, body_bytes: int) -> None:
        self.body_bytes += body_bytes
        left = self._bytes_of[client] = self.bytes_of(client) + body_bytes
        if not left:
            del self._bytes_of[client]

    def of_client(self, client: str) -> list[Entry]:
        """The waiting calls of a client."""
        return [entry for entry in self._clients.get(client, ()) if not entry.done]

    def requests(self, client: str) -> int:
        """Of this hour."""
        return self._requests.get(client, 0)

    def count(self, client: str, wall_ns: int) -> bool:
        """One more request of a client. Whether its waiting calls lose a point by it."""
        if wall_ns // HOUR_NS != self._hour:
            self.turn_hour(wall_ns)
        number = self._requests[client] = self._requests.get(client, 0) + 1
        return number % STEP == 0 and number <= STEP * MOST_STEPS and client in self._clients

    def turn_hour(self, wall_ns: int) -> None:
        """Everyone's count begins anew, at each full hour UTC."""
        self._hour = wall_ns // HOUR_NS
        self._requests = {}

    def band(self, entry: Entry, now: int) -> int:
        """Where its priority of now puts a call."""
        waiter = entry.waiter
        waited_ns, requests = now - entry.arrived_ns, self.requests(waiter.client)
        points = priority(waiter.placement, waited_ns, requests, now)
        if waiter.loans is not None:
            points = max(points, waiter.loans.priority(waited_ns, requests, now))
        return points // 10

    def add(self, entry: Entry) -> None:
        self.entries[entry.waiter.id] = entry
        client = entry.waiter.client
        others = self._clients.get(client)
        if others is None:
            self._clients[client] = [entry]
            self._of_client[client] = 1
        else:
            number = self._of_client[client] = self._of_client[client] + 1
            if len(others) > 2 * number + SLACK:
                others[:] = self.of_client(client)
            others.append(entry)
        self._enlist(entry)
        if entry.waiter.body_bytes:
            self._weigh(client, entry.waiter.body_bytes)

    def _enlist(self, entry: Entry) -> None:
        band = entry.band
        self._counts[band] += 1
        arrivals = self._arrivals[band]
        if not arrivals or arrivals[-1].seq < entry.seq:
            arrivals.append(entry)
        else:  # it comes from another band
            insort(arrivals, entry, key=_seq_of)
        if len(arrivals) > 2 * self._counts[band] + SLACK:
            arrivals[:] = [one for one in arrivals if not one.done and one.band == band]

    def move(self, entry: Entry, band: int) -> None:
        """It stands in another band now."""
        self._counts[entry.band] -= 1
        entry.band = band
        self._enlist(entry)

    def remove(self, entry: Entry) -> None:
        entry.done = True
        entry.due_ns = 0
        self._counts[entry.band] -= 1
        del self.entries[entry.waiter.id]
        client = entry.waiter.client
        if entry.waiter.body_bytes:
            self._weigh(client, -entry.waiter.body_bytes)
        number = self._of_client[client] = self._of_client[client] - 1
        if not number:
            del self._of_client[client], self._clients[client]

    def gives_way(self, band: int, kept: int) -> Entry | None:
        """Who leaves a full queue for a call of this band: the newest call of the lowest band below it, though the
        lowest band of all keeps so many places. For a call of that band, while it has fewer: the newest above it.
        Else the floor of grants would find nobody to grant."""
        lowest = next((number for number in range(BANDS) if self._counts[number]), band)
        if band <= lowest and self._counts[band] < kept:
            return self._newest_in(range(band + 1, BANDS))
        return self._newest_in(number for number in range(band) if number > lowest or self._counts[number] > kept)

    def _newest_in(self, bands: Iterable[int]) -> Entry | None:
        """The newest call of the first of these bands that has one."""
        for number in bands:
            arrivals = self._arrivals[number]
            while arrivals:
                entry = arrivals[-1]
                if not entry.done and entry.band == number:
                    return entry
                arrivals.pop()
        return None

    def __iter__(self) -> Iterator[Entry]:
        return iter(list(self.entries.values()))


def _seq_of(entry: Entry) -> int:
    return entry.seq
