"""What the caller of a worker says its work takes of pools: in a header, or in its JSON body as callers of the system
replaced do."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from gateway.bodies import FIRST_BYTES
from gateway.errors import BadRequest
from gateway.jsonbody import parse

if TYPE_CHECKING:
    from gateway.call import Call

HEADER = b"x-tidegate-needs"
#: Members of the outermost object, either spelling; `{"email": 3}`.
MEMBERS = ("resourceRequirements", "resource_requirements")
#: A longer body is passed on without being looked at.
LONGEST_BODY = FIRST_BYTES
#: Of the header: its length; and the pools and units that may be stated.
LONGEST, MOST_STATED, MOST_UNITS = 512, 8, 10**12


def in_header(header: bytes) -> dict[str, int]:
    """ "email=3, database=5". Raises BadRequest."""
    found: dict[str, int] = {}
    for item in header.decode("latin-1")[: LONGEST + 1].split(","):
        name, _, figure = item.partition("=")
        name, figure = name.strip(), figure.strip()
        good = name and name not in found and figure.isascii() and figure.isdigit() and len(figure) <= 13
        if not good or not 1 <= int(figure) <= MOST_UNITS or len(found) == MOST_STATED or len(header) > LONGEST:
            raise BadRequest(
                f"The header {HEADER.decode()} states up to {MOST_STATED} pools, each once, with a whole number: "
                "email=3, database=5.",
                param=HEADER.decode(),
            )
        found[name] = int(figure)
    return found


async def hear(call: Call, length: int | None) -> None:
    """Reads what a body states: JSON that is short enough, where no header states anything. Raises BadRequest."""
    headers = call.headers
    is_json = b"json" in headers.get(b"content-type", b"").lower() and b"content-encoding" not in headers
    if is_json and HEADER not in headers and length is not None and 0 < length <= LONGEST_BODY:
        assert call.first_bytes is not None, "a worker's body is passed on as it comes"
        call.facts.stated = in_body(await call.first_bytes())


def in_body(body: bytes) -> dict[str, int]:
    """Nothing where it states nothing; 0 units are nothing as well. Raises BadRequest."""
    if not any(member.encode() in body for member in MEMBERS):
        return {}
    value = parse(body)
    stated = [value[member] for member in MEMBERS if member in value] if isinstance(value, dict) else []
    if not stated or stated == [None]:
        return {}
    if len(stated) == 1 and isinstance(stated[0], dict) and _are_amounts(stated[0]):
        return {name: amount for name, amount in stated[0].items() if amount}
    raise BadRequest(
        f'{MEMBERS[0]} states up to {MOST_STATED} pools, each with a whole number: {{"email": 3}}.', param=MEMBERS[0]
    )


def _are_amounts(stated: dict[str, Any]) -> bool:
    return len(stated) <= MOST_STATED and all(
        isinstance(amount, int) and not isinstance(amount, bool) and 0 <= amount <= MOST_UNITS
        for amount in stated.values()
    )
