"""What a call wishes of the queue: its urgency and its longest wait, in headers or in the body's `metadata`.

Headers count first. `metadata` is for users of SDKs who can't set headers; it belongs to the body and is forwarded as
it is. It is read on OpenAI routes only: Anthropic's metadata takes nothing but a user's id.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

from gateway import deadline
from gateway.errors import BadRequest

if TYPE_CHECKING:
    from gateway.call import Call

Urgency = Literal["urgent", "high", "normal", "low"]
URGENCIES: tuple[Urgency, ...] = ("low", "normal", "high", "urgent")  # the least first

#: The most urgent a call of a tier may be, unless [policy.queue] says otherwise; of other tiers: normal.
CLAIMS: dict[str, Urgency] = {"enterprise": "urgent", "premium": "urgent", "standard": "high", "basic": "normal"}

PRIORITY = b"x-tidegate-priority"
LONGEST_WAIT = b"x-tidegate-max-wait-ms"
ACCURACY = b"x-tidegate-accuracy"
ALLOW_DOWNGRADE = b"x-tidegate-allow-downgrade"
#: Words that mean one of ours in the system replaced.
_SYNONYMS = {"critical": "urgent", "medium": "normal"}
#: No wish reaches further: a day.
_MOST_MS = 86_400_000


def urgency_of(call: Call) -> Urgency | None:
    """The urgency that the call claims; None: it claims none. Raises BadRequest."""
    said = _said(call, PRIORITY, "tidegate_priority")
    if said is None:
        return None
    word = said.strip().lower()
    word = _SYNONYMS.get(word, word)
    if word not in URGENCIES:
        raise BadRequest(
            f"The priority {said[:40]!r} is not one of urgent, high, normal, low (x-tidegate-priority).",
            param="x-tidegate-priority",
        )
    return word


def longest_wait_of(call: Call) -> float | None:
    """Seconds that the call is willing to wait; None: it does not say. Raises BadRequest."""
    said = _said(call, LONGEST_WAIT, "tidegate_max_wait_ms")
    if said is None:
        return None
    written = said.strip()
    if not (written.isascii() and written.isdigit() and len(written) <= 12):
        raise BadRequest(
            f"The longest wait {said[:40]!r} is not a whole number of milliseconds (x-tidegate-max-wait-ms).",
            param="x-tidegate-max-wait-ms",
        )
    return min(int(written), _MOST_MS) / 1000


def deadline_wished(call: Call) -> int | None:
    """When the answer is of no more use, monotonic ns; None: the call does not say. The header was read already (see
    `deadline.py`); metadata says it in the same words. Raises BadRequest."""
    if call.deadline_ns is None:
        said = metadata_of(call, "tidegate_deadline")
        if said is not None:
            call.deadline_ns = call.started_ns + deadline.parse(said.encode()) - call.started_wall_ns
    return call.deadline_ns


def at_most(urgency: Urgency, highest: Urgency) -> Urgency:
    """Nobody claims more than they may."""
    return urgency if URGENCIES.index(urgency) <= URGENCIES.index(highest) else highest


def metadata_of(call: Call, name: str) -> str | None:
    """A wish in the body of an OpenAI call: texts, or whole numbers as well."""
    body: Any = call.json
    if call.dialect != "openai" or type(body) is not dict or "metadata" not in body:
        return None
    metadata = body["metadata"]
    value = metadata.get(name) if isinstance(metadata, dict) else None
    return str(value) if isinstance(value, str | int) and not isinstance(value, bool) else None


def accuracy_of(call: Call) -> str:
    """How exact the answer has to be: "high", or what is usual. Raises BadRequest."""
    said = _said(call, ACCURACY, "tidegate_accuracy")
    word = "normal" if said is None else said.strip().lower()
    if word not in ("high", "normal", "low"):
        raise BadRequest(
            f"The accuracy {word[:40]!r} is not one of high, normal, low (x-tidegate-accuracy).",
            param="x-tidegate-accuracy",
        )
    return word


def allows_downgrade(call: Call) -> bool | None:
    """Whether the call may be given to a cheaper model; None: it does not say. Raises BadRequest."""
    said = _said(call, ALLOW_DOWNGRADE, "tidegate_allow_downgrade")
    word = "" if said is None else said.strip().lower()
    if word not in ("", "true", "false"):
        raise BadRequest(
            f"x-tidegate-allow-downgrade is true or false, not {word[:40]!r}.", param="x-tidegate-allow-downgrade"
        )
    return None if not word else word == "true"


def _said(call: Call, header: bytes, name: str) -> str | None:
    written = call.headers.get(header)
    return written.decode("latin-1") if written is not None else metadata_of(call, name)
