"""Multipart bodies: decided on by their fields, wherever these stand, at every size; passed on as they came."""

from __future__ import annotations

import gzip
import json
import socket
from collections.abc import Callable
from typing import Any

import pytest

CONFIG = """
[server]
body_limit = "1 MiB"
[providers.up]
kind = "openai"
base_url = "{origin}/v1"
[models."whisper-1"]
targets = ["up/whisper-1"]
[models."renamed"]
targets = ["up/whisper-large-v3"]
[models."secret-model"]
targets = ["up/secret-model"]
[models."dall-e-2"]
targets = ["up/dall-e-2"]
[clients.wide]
[[clients.wide.keys]]
secret = "tg-wide-of-the-test"
[clients.narrow]
models = ["whisper-1", "renamed", "dall-e-2"]
[[clients.narrow.keys]]
secret = "tg-narrow-of-the-test"
"""
FORM = "multipart/form-data; boundary=B"
AUDIO = "/v1/audio/transcriptions"
SIZES = pytest.mark.parametrize("size", [10, 20_000, 200_000])


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory, start_module: Any, scripted: Any) -> Any:
    return start_module(tmp_path_factory.mktemp("forms"), CONFIG.format(origin=scripted.origin))


@pytest.fixture
def upstream(scripted: Any) -> Any:
    scripted.asked.clear()
    scripted.script = lambda asked: {"text": "hi", "usage": {"type": "duration", "seconds": 3}}
    return scripted


def send(server: Any, body: bytes, path: str = AUDIO, key: str = "tg-narrow-of-the-test", **headers: str) -> Any:
    return server.request("POST", path, body, key=key, content_type=FORM, **headers)


def call_row(server: Any, headers: dict[str, str]) -> dict[str, Any]:
    return next(call for call in server.calls() if call["id"] == headers["x-request-id"])


@SIZES
def test_the_model_counts_wherever_it_stands(server: Any, upstream: Any, form: Callable[..., bytes], size: int) -> None:
    """curl -F file=@a -F model=whisper-1, as in OpenAI's own examples."""
    body = form(("file", b"x" * size, "a.mp3"), ("model", "whisper-1"), ("language", "en"))
    status, headers, answer = send(server, body)
    assert status == 200, answer
    assert upstream.asked[0].body == body
    row = call_row(server, headers)
    assert (row["model"], row["unpriced"]) == ("whisper-1", False)
    assert float(row["cost_usd"]) > 0
    assert send(server, form(("file", b"x" * size, "a.mp3"), ("model", "secret-model")))[0] == 403
    renamed = form(("file", b"x" * size, "a.mp3"), ("model", "renamed"))
    assert send(server, renamed)[0] == 200
    assert upstream.asked[-1].body == renamed.replace(b"renamed", b"whisper-large-v3")


@SIZES
def test_the_header_names_it_and_an_equal_field_is_accepted(
    server: Any, upstream: Any, form: Callable[..., bytes], size: int
) -> None:
    file = ("file", b"x" * size, "a.mp3")
    for model, sent in (("whisper-1", b"whisper-1"), ("renamed", b"whisper-large-v3")):
        body = form(file, ("model", model), ("n", "1"))
        assert send(server, body, x_tidegate_model=model)[0] == 200
        assert upstream.asked[-1].body == body.replace(model.encode(), sent)
        assert send(server, form(file), x_tidegate_model=model)[0] == 200
        assert b'name="model"\r\n\r\n' + sent + b"\r\n--B--" in upstream.asked[-1].body, "what was decided on is sent"
    asked = len(upstream.asked)
    assert send(server, form(file, ("model", "secret-model")), x_tidegate_model="whisper-1")[0] == 400
    assert not any(b"secret-model" in one.body for one in upstream.asked[asked:])


@SIZES
def test_a_second_model_is_refused(server: Any, upstream: Any, form: Callable[..., bytes], size: int) -> None:
    """Also in the segment that holds the whole body."""
    file = ("file", b"x" * size, "a.mp3")
    for name in ("model", "Model", "model "):
        body = form(("model", "whisper-1"), file, (name, "secret-model"))
        assert send(server, body)[0] == 400, name
        assert send(server, form(file, ("model", "whisper-1"), (name, "secret-model")))[0] == 400, name
    assert not any(b"secret-model" in asked.body for asked in upstream.asked)


@SIZES
def test_an_unknown_path_takes_its_model_before_the_file(
    server: Any, upstream: Any, form: Callable[..., bytes], size: int
) -> None:
    file = ("input_reference", b"x" * size, "a.png")
    upstream.script = lambda asked: {"id": "video_1", "object": "video"}
    assert send(server, form(("model", "secret-model"), file), "/v1/videos")[0] == 403
    status, headers, _ = send(server, form(("model", "renamed"), file), "/v1/videos")
    assert (status, headers["x-tidegate-model"]) == (200, "renamed")
    assert b"whisper-large-v3" in upstream.asked[-1].body
    status, _, answer = send(server, form(file, ("model", "secret-model")), "/v1/videos")
    assert status == 400
    assert b"before the file" in answer


MODEL = b'content-disposition: form-data; name="model"\r\n'
STRANGE = {
    "not the boundary": b"--A\r\n" + MODEL + b"\r\nsecret-model\r\n--A--\r\n",
    "a preamble": b"x\r\n--B\r\n" + MODEL + b"\r\nwhisper-1\r\n--B--\r\n",
    "an epilogue": b"--B\r\n" + MODEL + b"\r\nwhisper-1\r\n--B--\r\n--B\r\n" + MODEL + b"\r\nsecret-model\r\n--B--\r\n",
    "no end": b"--B\r\n" + MODEL + b"\r\nwhisper-1\r\n",
    "an encoded part": b"--B\r\n" + MODEL + b"content-transfer-encoding: base64\r\n\r\nd2g=\r\n--B--\r\n",
    "a folded header": b'--B\r\ncontent-disposition: form-data;\r\n name="model"\r\n\r\nsecret-model\r\n--B--\r\n',
    "an extended name": b"--B\r\ncontent-disposition: form-data; name*=utf-8''model\r\n\r\nx\r\n--B--\r\n",
    "two names": b'--B\r\ncontent-disposition: form-data; name="a"; name="model"\r\n\r\nx\r\n--B--\r\n',
    "an escaped name": b'--B\r\ncontent-disposition: form-data; name="mode\\l"\r\n\r\nx\r\n--B--\r\n',
    "a model as a file": b'--B\r\ncontent-disposition: form-data; name="model"; filename="a"\r\n\r\nx\r\n--B--\r\n',
    "a space behind the boundary": b"--B \r\n" + MODEL + b"\r\nsecret-model\r\n--B--\r\n",
    "lines without CR": b'--B\ncontent-disposition: form-data; name="model"\n\nsecret-model\n--B--\n',
    "no name": b"--B\r\ncontent-type: text/plain\r\n\r\nx\r\n--B--\r\n",
    "long headers": b"--B\r\nx: " + b"y" * 9_000 + b"\r\n" + MODEL + b"\r\nx\r\n--B--\r\n",
    "many parts": (b"--B\r\n" + MODEL.replace(b"model", b"a") + b"\r\nx\r\n") * 1_001 + b"--B--\r\n",
}


@pytest.mark.parametrize("name", STRANGE)
def test_what_parsers_read_differently_is_refused(server: Any, upstream: Any, name: str) -> None:
    status, _, answer = send(server, STRANGE[name])
    assert status == 400, answer
    assert b"multipart" in answer
    assert not any(asked.body.endswith(b"--B--\r\n") for asked in upstream.asked)


@pytest.mark.parametrize("kind", ["multipart/form-data", f"{FORM}; boundary=C", "multipart/form-data; xboundary=B"])
def test_a_boundary_is_named_once(server: Any, form: Callable[..., bytes], kind: str) -> None:
    assert (
        server.request("POST", AUDIO, form(("model", "whisper-1")), key="tg-narrow-of-the-test", content_type=kind)[0]
        == 400
    )


@pytest.mark.parametrize("late", [False, True])
def test_images_edited_are_counted_by_the_forms_fields(
    server: Any, upstream: Any, form: Callable[..., bytes], late: bool
) -> None:
    upstream.script = lambda asked: {"created": 1, "data": [{"url": "x"}] * 3}
    image, asked = ("image", b"x" * 100_000, "a.png"), [("n", "3"), ("size", "256x256")]
    parts = [("model", "dall-e-2"), image, *asked] if late else [("model", "dall-e-2"), *asked, image]
    _, headers, _ = send(server, form(*parts), "/v1/images/edits")
    attempts = server.tidegate("usage", "--call", headers["x-request-id"], "--json", "--config", str(server.config))[
        "attempts"
    ]
    assert attempts[0]["units"]["image:256x256:standard"] == 3, attempts
    assert send(server, form(("n", "1"), ("n", "9"), image), "/v1/images/edits")[0] == 400


def test_where_no_model_is_called_a_field_of_that_name_stays(
    server: Any, upstream: Any, form: Callable[..., bytes]
) -> None:
    upstream.script = lambda asked: {"id": "file-1", "object": "file"}
    body = form(("model", "whisper-1"), ("purpose", "batch"), ("file", b"x", "a.jsonl"))
    assert send(server, body, "/v1/files")[0] == 200
    assert upstream.asked[-1].body == body


def test_a_body_that_grows_when_it_is_decoded_is_413(server: Any) -> None:
    body = gzip.compress(json.dumps({"model": "whisper-1", "messages": [], "pad": "x" * 3_000_000}).encode())
    status, _, answer = server.request(
        "POST", "/v1/chat/completions", body, key="tg-wide-of-the-test", content_encoding="gzip"
    )
    assert status == 413
    assert json.loads(answer)["error"]["code"] == "request_too_large"


def test_a_form_passes_as_it_comes(server: Any, upstream: Any, form: Callable[..., bytes]) -> None:
    """In pieces of whatever length, with a boundary in its file that is almost its own."""
    body = form(("model", "whisper-1"), ("file", b"\r\n--C\r\n-B--\r\r\n\r\n--" * 40, "a.mp3"))
    head = (
        f"POST {AUDIO} HTTP/1.1\r\nhost: a\r\nauthorization: Bearer tg-narrow-of-the-test\r\ncontent-type: {FORM}\r\n"
    )
    for step in (1, 7):
        with socket.create_connection(("127.0.0.1", server.port)) as client:
            client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            client.sendall(head.encode() + b"content-length: %d\r\n\r\n" % len(body))
            for start in range(0, len(body), step):
                client.sendall(body[start : start + step])
            assert b" 200 " in client.recv(4096)
        assert upstream.asked[-1].body == body


def test_a_form_that_is_not_encoded_may_say_so(server: Any, upstream: Any, form: Callable[..., bytes]) -> None:
    sent = form(("model", "whisper-1"), ("file", b"x" * 10, "a.mp3"))
    status, _, body = send(server, sent, content_encoding="Identity")
    assert status == 200, body
    assert "content-encoding" not in upstream.asked[0].headers


@pytest.mark.parametrize("coding", ["gzip", "br"])
def test_an_encoded_form_is_refused_for_that(
    server: Any, upstream: Any, form: Callable[..., bytes], coding: str
) -> None:
    """Its fields would have to be read, and it passes on as it comes."""
    encoded = gzip.compress(form(("model", "whisper-1"), ("file", b"x" * 10, "a.mp3")))
    status, headers, body = send(server, encoded, content_encoding=coding)
    error = json.loads(body)["error"]
    assert (status, error["code"], headers["accept-encoding"]) == (415, "unsupported_content_encoding", "identity")
    assert "content-encoding" in error["message"]
    assert not upstream.asked
