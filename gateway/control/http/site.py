"""The control API as one application, and which paths are its own."""

from __future__ import annotations

from gateway.clock import Clock
from gateway.control.http import old, pools, providers, queue
from gateway.control.http.edge import Edge
from gateway.control.sight import Sight
from gateway.directory import Directory
from gateway.ids import Ids


def site(sight: Sight, directory: Directory, ids: Ids, clock: Clock) -> Edge:
    """All of it."""
    subjects = (pools, queue, providers, old)
    return Edge([route for subject in subjects for route in subject.routes(sight)], directory, ids, clock)
