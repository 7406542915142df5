"""tidegate doctor over real sockets: what it finds, what it asks for, and that its exit code is honest."""

from __future__ import annotations

import asyncio
import json
import socket
import sqlite3
import ssl
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from email.utils import formatdate

import pytest
import trustme
from typer.testing import CliRunner

from gateway.__main__ import build
from gateway.diagnosis import Finding, examine

OK = "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\n"
MODELS = '{"data": []}'


class Upstream:
    """A raw server with one answer; `asked` has the head of every request."""

    def __init__(self, head: str, body: str) -> None:
        self.head, self.body = head, body
        self.asked: list[str] = []
        self.port = 0
        self.left = asyncio.Event()  # somebody went without asking

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            head = await reader.readuntil(b"\r\n\r\n")
        except asyncio.IncompleteReadError:
            self.asked.append("")
            self.left.set()
            writer.close()
            return
        self.asked.append(head.decode().lower())
        body = self.body.encode()
        writer.write(f"{self.head}content-length: {len(body)}\r\nconnection: close\r\n\r\n".encode() + body)
        await writer.drain()
        writer.close()


@asynccontextmanager
async def upstream(
    head: str = OK, body: str = MODELS, date: float | None = 0.0, tls: ssl.SSLContext | None = None
) -> AsyncIterator[Upstream]:
    """`date`: seconds that its clock is ahead of ours; None sends none."""
    if date is not None:
        head += f"date: {formatdate(time.time() + date, usegmt=True)}\r\n"
    one = Upstream(head, body)
    server = await asyncio.start_server(one.serve, "127.0.0.1", 0, ssl=tls)
    one.port = server.sockets[0].getsockname()[1]
    async with server:
        yield one


def free_port() -> int:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        return int(taken.getsockname()[1])


@pytest.fixture
def look(loaded) -> Callable[..., object]:
    async def of(text: str, env: dict[str, str] | None = None, listen: str | None = None) -> dict[str, list[Finding]]:
        listen = listen or f"127.0.0.1:{free_port()}"
        found = await examine(loaded(text, env, {"server.listen": listen}), env or {}, timeout_s=5)
        subjects: dict[str, list[Finding]] = {}
        for finding in found:
            subjects.setdefault(finding.subject, []).append(finding)
        return subjects

    return of


def provider(port: int, more: str = "", path: str = "/v1", scheme: str = "http") -> str:
    return f'[providers.up]\nkind = "openai"\nbase_url = "{scheme}://127.0.0.1:{port}{path}"\n{more}\n'


async def test_a_provider_is_asked_for_its_models_and_nothing_else(look):
    async with upstream() as one:
        more = 'api_key = "sk-1"\nheaders = { x-team = "a" }\nquery = { api-version = "2" }'
        found = await look(provider(one.port, more))
    assert [finding.status for finding in found["up"]] == ["ok"]
    (asked,) = one.asked
    assert asked.startswith("get /v1/models?api-version=2 http/1.1\r\n")
    assert "authorization: bearer sk-1\r\n" in asked
    assert "x-team: a\r\n" in asked
    assert "sk-1" not in str(found)


async def test_anthropic_and_azure_get_the_key_in_their_header(look):
    async with upstream() as one, upstream() as two:
        text = f"""
            [providers.up]
            kind = "anthropic"
            base_url = "http://127.0.0.1:{one.port}"
            api_key = "sk-2"
            [providers.azure]
            kind = "openai"
            base_url = "http://127.0.0.1:{two.port}/openai/v1"
            api_key = "sk-3"
            auth_header = "api-key"
        """
        await look(text)
    assert one.asked[0].startswith("get /v1/models http/1.1\r\n")
    assert "x-api-key: sk-2\r\n" in one.asked[0]
    assert "anthropic-version: 2023-06-01\r\n" in one.asked[0]
    assert two.asked[0].startswith("get /openai/v1/models http/1.1\r\n")
    assert "\r\napi-key: sk-3\r\n" in two.asked[0]
    assert "authorization" not in two.asked[0]


@pytest.mark.parametrize(
    ("head", "body", "status", "message"),
    [
        (OK, "{}", "ok", "answers"),
        ("HTTP/1.1 200 OK\r\ncontent-type: text/html\r\n", "<html>", "fail", "not JSON"),
        ("HTTP/1.1 401 Unauthorized\r\n", "", "fail", "refuses"),
        ("HTTP/1.1 403 Forbidden\r\n", "", "warn", "forbids"),
        ("HTTP/1.1 404 Not Found\r\n", "", "warn", "does not exist"),
        ("HTTP/1.1 429 Too Many\r\n", "", "warn", "limits us"),
        ("HTTP/1.1 301 Moved\r\nlocation: https://else\r\n", "", "fail", "redirects to https://else"),
        ("HTTP/1.1 503 Gone\r\n", "", "fail", "status 503"),
        ("RUBBISH\r\n", "", "fail", "can't be reached"),
    ],
)
async def test_each_answer_means_something(look, head, body, status, message):
    async with upstream(head, body) as one:
        found = await look(provider(one.port))
    (finding,) = found["up"]
    assert finding.status == status
    assert message in finding.message


async def test_a_base_url_without_v1_is_recognised_by_its_404(look):
    async with upstream("HTTP/1.1 404 Not Found\r\n", "") as one:
        found = await look(provider(one.port, path=""))
    (finding,) = found["up"]
    assert finding.status == "fail"
    assert finding.hint == f'most want base_url = "http://127.0.0.1:{one.port}/v1"'


async def test_v1_twice_is_recognised(look):
    async with upstream() as one:
        found = await look(provider(one.port, path="/v1/v1/"))
    assert one.asked[0].startswith("get /v1/models ")
    assert found["up"][0].status == "ok"
    (told,) = [finding for finding in found["configuration"] if finding.status == "warn"]
    assert f"/v1/v1/ is read as http://127.0.0.1:{one.port}/v1" in told.message


@pytest.mark.parametrize(
    ("env", "status", "hint"),
    [
        ({"OPENAI_BASE_URL": "http://127.0.0.1:8123/v1"}, "ok", ""),
        ({"OPENAI_BASE_URL": "http://localhost:8123"}, "ok", ""),
        ({"OPENAI_BASE_URL": "http://127.0.0.1:8123/openai"}, "fail", "http://127.0.0.1:8123/v1"),
        ({"OPENAI_BASE_URL": "http://127.0.0.1:8123/v1/v1"}, "ok", ""),
        ({"OPENAI_BASE_URL": "https://else.example/v1/v1/"}, "fail", "export OPENAI_BASE_URL=https://else.example/v1"),
        ({"OPENAI_BASE_URL": "https://else.example"}, "warn", "/v1"),
        ({"ANTHROPIC_BASE_URL": "http://127.0.0.1:8123"}, "ok", ""),
        ({"ANTHROPIC_BASE_URL": "http://127.0.0.1:8123/v1"}, "ok", ""),
        ({"ANTHROPIC_BASE_URL": "http://127.0.0.1:8123/x"}, "fail", "http://127.0.0.1:8123"),
        ({"ANTHROPIC_BASE_URL": "https://else.example/v1"}, "warn", "https://else.example"),
    ],
)
def test_base_urls_of_clients_on_this_machine_are_looked_at(loaded, env, status, hint):
    from gateway.diagnosis.addresses import client_addresses

    settings = loaded("", None, {"server.listen": "127.0.0.1:8123"}).settings
    (finding,) = client_addresses(env, settings.server)
    assert finding.status == status
    assert hint in finding.hint


async def test_a_provider_that_is_this_gateway_itself_is_recognised(look):
    port = free_port()
    found = await look(provider(port), listen=f"127.0.0.1:{port}")
    assert "is this gateway itself" in found["up"][0].message
    assert found["up"][0].status == "fail"


async def test_what_can_not_be_reached_fails_and_what_does_not_answer_is_not_waited_for(loaded):
    async def silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()
        writer.close()

    server = await asyncio.start_server(silent, "127.0.0.1", 0)
    async with server:
        port = server.sockets[0].getsockname()[1]
        text = provider(port) + f'[workers.w]\nbase_url = "http://127.0.0.1:{free_port()}"\n'
        listen = {"server.listen": f"127.0.0.1:{free_port()}"}
        started = time.perf_counter()
        found = {finding.subject: finding for finding in await examine(loaded(text, None, listen), {}, timeout_s=0.3)}
        assert time.perf_counter() - started < 10  # an ordinary connection would be given longer
    assert (found["up"].status, found["w"].status) == ("fail", "fail")
    assert "no answer in time" in found["up"].message


async def test_a_worker_is_connected_to_and_sent_nothing(look):
    async with upstream() as one:
        found = await look(f'[workers.w]\nbase_url = "http://127.0.0.1:{one.port}/x"\n')
        assert found["w"][0].status == "ok"
        await one.left.wait()
    assert one.asked == [""]


async def test_certificates_are_verified(look, tmp_path):
    authority = trustme.CA()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("127.0.0.1").configure_cert(context)
    authority.cert_pem.write_to_path(str(tmp_path / "ca.pem"))
    async with upstream(tls=context) as one:
        strangers = await look(provider(one.port, scheme="https"))
        trusted = await look(provider(one.port, 'ca_file = "ca.pem"', scheme="https"))
        careless = await look(provider(one.port, "verify = false", scheme="https"))
    assert strangers["up"][0].status == "fail"
    assert "ca_file" in strangers["up"][0].hint
    assert trusted["up"][0].status == "ok"
    assert careless["up"][0].status == "ok"


@pytest.mark.parametrize(
    ("date", "status", "message"),
    [
        (0, "ok", "agrees"),
        (60, "warn", "behind"),
        (-60, "warn", "ahead of"),
        (3600, "fail", "3600 s behind"),
        (None, "info", ""),
    ],
)
async def test_the_clock_is_compared_with_the_date_header(look, date, status, message):
    async with upstream(date=date) as one:
        found = await look(provider(one.port))
    (finding,) = found["clock"]
    assert finding.status == status
    assert message in finding.message.replace("3599", "3600").replace("3601", "3600")


async def test_the_data_directory_is_looked_at_and_left_as_it_was(look, tmp_path):
    found = await look("")
    assert "will be made" in found["data directory"][0].message
    data = tmp_path / "data"
    assert not data.exists()
    data.mkdir(mode=0o700)
    (data / "tidegate.db").write_bytes(b"this is no database, however long it is" * 100)
    (data / "pepper").write_text("p")
    (data / "pepper").chmod(0o644)
    found = await look("")
    assert found["data directory"][0].status == "ok"
    assert found["database"][0].status == "fail"
    assert found["pepper"][0].status == "fail"
    assert "chmod 600" in found["pepper"][0].hint
    assert sorted(path.name for path in data.iterdir()) == ["pepper", "tidegate.db"]


async def test_a_good_database_is_read_without_leaving_a_log_beside_it(look, tmp_path):
    data = tmp_path / "data"
    data.mkdir(mode=0o700)
    connection = sqlite3.connect(data / "tidegate.db")
    connection.execute("PRAGMA journal_mode=WAL").close()
    connection.execute("CREATE TABLE t (x)").close()
    connection.close()
    found = await look("")
    assert found["database"][0].status == "ok"
    assert [path.name for path in data.iterdir()] == ["tidegate.db"]


async def test_a_data_directory_that_is_no_directory_fails(look, tmp_path):
    (tmp_path / "data").write_text("a file")
    found = await look("")
    assert found["data directory"][0].status == "fail"


async def test_a_running_gateway_is_recognised_and_a_stranger_too(look):
    async with upstream(body='{"name": "tidegate", "version": "9"}') as one:
        found = await look("", listen=f"127.0.0.1:{one.port}")
        assert [asked.split(" http")[0] for asked in one.asked] == ["get /", "get /readyz"]
    assert found["running gateway"][0].status == "warn"
    async with upstream(body='{"name": "else"}') as one:
        found = await look("", listen=f"127.0.0.1:{one.port}")
    assert found["running gateway"][0].status == "fail"
    assert "something else" in found["running gateway"][0].message
    found = await look("")
    assert found["running gateway"][0].status == "info"


async def test_the_fake_provider_needs_no_reaching(look):
    found = await look("")
    assert found["providers"][0].status == "info"


@pytest.mark.parametrize(("reachable", "code"), [(True, 0), (False, 1)])
async def test_the_exit_code_is_honest(write, reachable, code):
    async with upstream() as one:
        port = one.port if reachable else free_port()
        listen = f'[server]\nlisten = "127.0.0.1:{free_port()}"\n'
        path = str(write('policies = ["identity"]\n' + listen + provider(port, 'api_key = "sk-hush"')))
        arguments = ["doctor", "-c", path, "--json"]
        app = build("doctor")
        result = await asyncio.to_thread(CliRunner().invoke, app, arguments)
        printed = await asyncio.to_thread(CliRunner().invoke, app, arguments[:-1])
    assert (result.exit_code, printed.exit_code) == (code, code)
    report = json.loads(result.stdout)
    assert report["ok"] is (code == 0)
    assert {"status", "subject", "message", "hint"} == set(report["findings"][0])
    assert f"{1 - int(reachable)} failed" in printed.stdout
    assert "sk-hush" not in result.stdout + printed.stdout
