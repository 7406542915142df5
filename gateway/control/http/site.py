"""The control API as one application, and which paths are its own."""

from __future__ import annotations

from gateway.advice.adviser import Adviser
from gateway.clock import Clock
from gateway.control.http import advice, old, pools, providers, queue
from gateway.control.http.edge import Edge
from gateway.control.sight import Sight
from gateway.directory import Directory
from gateway.ids import Ids


def site(sight: Sight, adviser: Adviser, directory: Directory, ids: Ids, clock: Clock) -> Edge:
    """All of it."""
    subjects = (pools, queue, providers, old)
    routes = [route for subject in subjects for route in subject.routes(sight)]
    return Edge([*routes, *advice.routes(adviser)], directory, ids, clock)
