"""Knows the faults that change what an answer says; those that change how its bytes go out are delivery's."""

from __future__ import annotations

import zlib
from collections.abc import Iterable, Iterator
from itertools import islice

import orjson

from gateway.demo.exchange import EVENTS, Exchange, Reply
from gateway.demo.refusal import ProviderError
from gateway.demo.usage import Usage
from gateway.demo.wire import BODILESS

HTML = (
    b"<!DOCTYPE html>\n<html><head><title>Bad gateway</title></head>"
    b"<body><center><h1>Bad gateway</h1></center></body></html>\n"
)
GARBAGE = b"\x16\x03\x01\x00\xa5\x01\x00\x00not http at all\x00\xff\xfe\r\n\r\n"


def shape(exchange: Exchange, reply: Reply) -> Reply:
    """The reply with its script's faults."""
    script = exchange.script
    if script.html:
        return Reply(HTML, 200 if script.status is None else script.status, b"text/html; charset=utf-8")
    if script.errorbody:
        return Reply(ProviderError(500, code=script.code).render(exchange.anthropic, exchange.id))
    if script.status is not None and reply.status == 200:
        reply = _with_status(exchange, reply, script.status)
    if script.overloaded is not None and reply.status == 200:
        _overload(exchange, reply, script.overloaded)
    if script.huge_event is not None:
        _pad(reply, script.huge_event)
    if script.badjson:
        _break(reply)
    if script.truncate is not None:
        reply.body = reply.body[: script.truncate]
        reply.events = None if reply.events is None else islice(reply.events, script.truncate)
    if script.crlf and reply.events is not None:
        reply.events = (event.replace(b"\n", b"\r\n") for event in reply.events)
    if script.gzip:
        _compress(reply)
    return reply


def _with_status(exchange: Exchange, reply: Reply, status: int) -> Reply:
    if status >= 300 and status not in BODILESS:
        error = ProviderError(status, code=exchange.script.code)
        return Reply(error.render(exchange.anthropic, exchange.id), status)
    reply.status = status
    if status in BODILESS:
        reply.body, reply.events, reply.usage = b"", None, Usage()
    return reply


def _overload(exchange: Exchange, reply: Reply, after: int) -> None:
    """Ends a stream with an error event after `after` events; a plain answer becomes an error with status 200."""
    if reply.events is None:
        reply.body = ProviderError(529).render(exchange.anthropic, exchange.id)
        reply.usage = Usage()
        return
    reply.events = _first(reply.events, after, overload_event(exchange))
    reply.content_type = EVENTS
    if after <= reply.lead:
        reply.usage = Usage()


def overload_event(exchange: Exchange) -> bytes:
    """What a provider sends inside a stream when it can't go on."""
    if exchange.anthropic:
        error = {"type": "error", "error": {"type": "overloaded_error", "message": "Overloaded"}}
        return b"event: error\ndata: %b\n\n" % orjson.dumps(error)
    message = "The server is currently overloaded with other requests. Sorry about that!"
    if exchange.route == "responses":
        failed = {"type": "error", "code": "server_error", "message": message, "param": None, "sequence_number": 0}
        return b"event: error\ndata: %b\n\n" % orjson.dumps(failed)
    told = {"error": {"message": message, "type": "server_error", "param": None, "code": "server_overloaded"}}
    return b"data: %b\n\n" % orjson.dumps(told)


def _first(events: Iterable[bytes], count: int, last: bytes) -> Iterator[bytes]:
    for index, event in enumerate(events):
        if index >= count:
            break
        yield event
    yield last


def _changed(events: Iterable[bytes], index: int, change: bytes, keep: int | None) -> Iterator[bytes]:
    """The events, with `change` in place of the end of the one at `index`; of that, `keep` bytes are kept."""
    for number, event in enumerate(events):
        if number != index:
            yield event
            continue
        kept = len(event) - len(b"}\n\n") if keep is None else min(keep, len(event) - len(b"}\n\n"))
        yield event[:kept] + change


def _pad(reply: Reply, size: int) -> None:
    filler = b',"padding":"%b"}' % (b"x" * size)
    if reply.events is not None:
        reply.events = _changed(reply.events, reply.lead, filler + b"\n\n", None)
    elif reply.body.endswith(b"}"):
        reply.body = reply.body[:-1] + filler


def _break(reply: Reply) -> None:
    if reply.events is not None:
        reply.events = _changed(reply.events, reply.lead, b"\n\n", 40)
    else:
        reply.body = reply.body[: len(reply.body) * 2 // 3]


def _compress(reply: Reply) -> None:
    reply.headers.append(b"content-encoding: gzip\r\n")
    if reply.events is not None:
        reply.events = _compressed(reply.events)
    else:
        packer = zlib.compressobj(wbits=31)
        reply.body = packer.compress(reply.body) + packer.flush()


def _compressed(events: Iterable[bytes]) -> Iterator[bytes]:
    packer = zlib.compressobj(wbits=31)
    for event in events:
        yield packer.compress(event) + packer.flush(zlib.Z_SYNC_FLUSH)
    yield packer.flush()


def sign(reply: Reply, nonce: bytes) -> None:
    """Puts the nonce into the body, or into every event, so that a mixed answer shows itself."""
    member = b',"x_nonce":%b}' % orjson.dumps(nonce.decode("latin-1"))
    if reply.events is not None:
        reply.events = (event[:-3] + member + b"\n\n" if event.endswith(b"}\n\n") else event for event in reply.events)
    elif reply.body.endswith(b"}") and len(reply.body) > len(b"{}"):
        reply.body = reply.body[:-1] + member


def rechunk(events: Iterable[bytes], size: int) -> Iterator[bytes]:
    """The same bytes in pieces of `size`, however the events lie."""
    waiting = bytearray()
    for event in events:
        waiting += event
        while len(waiting) >= size:
            yield bytes(waiting[:size])
            del waiting[:size]
    if waiting:
        yield bytes(waiting)
