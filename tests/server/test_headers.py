"""Header rules in both directions."""

import pytest

from gateway.server.headers import Origin, RequestRules, ResponseRules, request_headers, response_headers
from gateway.server.peers import Networks, Peers

UNTRUSTED = Origin(b"192.0.2.1", b"https")
TRUSTED = Origin(b"10.0.0.1", b"http", trusted=True)


def pairs(**headers: str) -> list[tuple[bytes, bytes]]:
    return [(name.replace("_", "-").encode(), value.encode()) for name, value in headers.items()]


def up(raw: list[tuple[bytes, bytes]], kind: str = "http", origin: Origin = UNTRUSTED) -> dict[bytes, bytes]:
    result = request_headers(raw, RequestRules(kind), origin)
    assert len(dict(result)) == len(result)
    return dict(result)


def down(raw: list[tuple[bytes, bytes]], kind: str = "http") -> list[tuple[bytes, bytes]]:
    return response_headers(raw, ResponseRules(kind))


SDK = pairs(
    host="gate",
    connection="keep-alive",
    content_type="application/json",
    content_length="12",
    accept="application/json",
    accept_encoding="gzip",
    user_agent="OpenAI/Python",
    x_stainless_lang="python",
    openai_beta="x",
    openai_organization="org",
    authorization="Bearer tg-1",
    traceparent="00-1",
    idempotency_key="k",
    x_custom="1",
    x_tidegate_priority="5",
    x_forwarded_for="1.1.1.1",
)


def test_an_ai_provider_gets_what_is_listed() -> None:
    assert list(up(SDK, "openai")) == [
        b"content-type",
        b"accept",
        b"user-agent",
        b"x-stainless-lang",
        b"openai-beta",
        b"traceparent",
        b"idempotency-key",
    ]
    anthropic = up([*SDK, *pairs(anthropic_version="2023-06-01", anthropic_beta="a")], "anthropic")
    assert {b"anthropic-version", b"anthropic-beta"} <= set(anthropic)
    assert b"openai-beta" not in anthropic


@pytest.mark.parametrize("kind", ["openai", "anthropic", "http"])
def test_credentials_and_hop_by_hop_never_go_up(kind: str) -> None:
    secret = pairs(
        authorization="a",
        x_api_key="a",
        api_key="a",
        x_goog_api_key="a",
        cookie="a",
        proxy_authorization="a",
        connection="close",
        keep_alive="1",
        proxy_connection="a",
        te="trailers",
        trailer="x",
        transfer_encoding="chunked",
        upgrade="h2c",
        http2_settings="a",
        expect="100-continue",
        host="x",
        content_length="3",
        x_original_url="/admin",
        x_http_method_override="DELETE",
    )
    assert [header for header in request_headers(secret, RequestRules(kind), UNTRUSTED) if header in secret] == []


def test_a_worker_gets_what_is_end_to_end() -> None:
    got = up(SDK)
    assert got[b"x-custom"] == b"1"
    assert got[b"accept-encoding"] == b"gzip"
    assert b"x-tidegate-priority" not in got
    assert got[b"x-forwarded-for"] == b"192.0.2.1"
    assert got[b"x-forwarded-proto"] == b"https"
    assert got[b"x-forwarded-host"] == b"gate"


CLAIMS = pairs(
    host="gate",
    x_forwarded_for="6.6.6.6",
    x_forwarded_proto="ftp",
    x_forwarded_host="evil",
    x_forwarded_port="1",
    x_real_ip="6.6.6.6",
    forwarded="for=6.6.6.6",
    x_client_id="root",
    x_user_id="root",
    x_worker_id="root",
    x_tidegate_client="root",
    x_tidegate_org="root",
)


def test_what_an_untrusted_peer_claims_is_replaced() -> None:
    identity = pairs(x_tidegate_client="acme", x_tidegate_org="acme-org")
    got = request_headers(CLAIMS, RequestRules("http"), UNTRUSTED, identity)
    assert got == [
        (b"x-forwarded-for", b"192.0.2.1"),
        (b"x-forwarded-proto", b"https"),
        (b"x-forwarded-host", b"gate"),
        *identity,
    ]


# What proxies, single sign-on and TLS terminators in common use tell a server about its caller.
BY_OTHERS = [
    *("remote-user", "remote-groups", "x-remote-user", "x-remote-addr", "x-authenticated-user", "x-webauth-user"),
    *("x-auth-request-user", "x-auth-request-email", "x-amzn-oidc-identity", "x-goog-authenticated-user-email"),
    *("x-ms-client-principal", "x-ms-client-principal-name", "cf-access-authenticated-user-email"),
    *("x-authentik-username", "x-consumer-username", "tailscale-user-login"),
    *("x-ssl-client-verify", "ssl-client-cert", "client-cert"),
    *("cf-connecting-ip", "fastly-client-ip", "fly-client-ip", "x-cluster-client-ip", "x-originating-ip"),
    *("x-forwarded", "x-original-forwarded-for", "x-original-host", "x-envoy-external-address", "x-azure-clientip"),
]


@pytest.mark.parametrize("name", BY_OTHERS)
def test_what_only_a_proxy_may_say_comes_from_a_trusted_one(name: str) -> None:
    claim = [(name.encode(), b"root")]
    assert up(claim).keys() == {b"x-forwarded-for", b"x-forwarded-proto"}
    told = [*claim, (b"connection", name.encode())]
    assert up(told, origin=TRUSTED)[name.encode()] == b"root", "a client took it away by naming it in Connection"


def test_a_header_that_becomes_a_setting_of_cgi_programs_stays_behind() -> None:
    """`Proxy` becomes HTTP_PROXY (httpoxy.org)."""
    assert b"proxy" not in up(pairs(proxy="http://evil"), origin=TRUSTED)


def test_a_request_without_host_has_none_to_tell() -> None:
    assert up([]) == {b"x-forwarded-for": b"192.0.2.1", b"x-forwarded-proto": b"https"}


def test_what_a_trusted_proxy_says_is_kept_and_continued() -> None:
    got = up([*CLAIMS, (b"x-forwarded-for", b"7.7.7.7")], origin=TRUSTED)
    assert got[b"x-forwarded-for"] == b"6.6.6.6, 7.7.7.7, 10.0.0.1"
    assert (got[b"x-forwarded-proto"], got[b"x-forwarded-host"]) == (b"ftp", b"evil")
    assert (got[b"x-client-id"], got[b"x-real-ip"], got[b"x-forwarded-port"]) == (b"root", b"6.6.6.6", b"1")
    assert not any(name.startswith(b"x-tidegate-") for name in got)


def test_names_with_an_underscore_stay_behind() -> None:
    """A WSGI worker would read them as the names with a hyphen."""
    assert up([(b"x_tidegate_client", b"root"), (b"content_length", b"0"), (b"x_forwarded_for", b"1")]).keys() == {
        b"x-forwarded-for",
        b"x-forwarded-proto",
    }


def test_connection_names_more_hop_by_hop_headers() -> None:
    raw = pairs(connection="keep-alive, X-Secret", x_secret="1", x_open="2", x_third="3")
    got = up([*raw, (b"connection", b"x-third")])
    assert b"x-open" in got
    assert b"x-secret" not in got
    assert b"x-third" not in got


@pytest.mark.parametrize("kind", ["openai", "anthropic", "http"])
@pytest.mark.parametrize(
    "name",
    [
        b"content-type",
        b"accept",
        b"idempotency-key",
        b"anthropic-version",
        b"openai-beta",
        b"x-forwarded-for",
        b"range",
    ],
)
def test_connection_never_removes_a_security_header(kind: str, name: bytes) -> None:
    kept = up([(name, b"1")], kind)
    assert up([(b"connection", b"close, " + name.title()), (name, b"1")], kind) == kept


def test_connection_never_removes_what_the_gateway_says() -> None:
    identity = pairs(x_tidegate_client="acme")
    raw = pairs(connection="x-tidegate-client, x-forwarded-for, host", host="gate")
    got = dict(request_headers(raw, RequestRules("http"), UNTRUSTED, identity))
    assert got[b"x-tidegate-client"] == b"acme"
    assert got[b"x-forwarded-for"] == b"192.0.2.1"
    assert got[b"x-forwarded-host"] == b"gate"


PROVIDER = pairs(
    date="now",
    server="cloudflare",
    content_type="application/json",
    content_length="2",
    connection="keep-alive",
    set_cookie="__cf_bm=1",
    cf_ray="1",
    alt_svc="h3",
    strict_transport_security="1",
    via="1.1 x",
    openai_processing_ms="5",
    openai_organization="operator",
    anthropic_organization_id="operator",
    x_ratelimit_remaining_tokens="1",
    anthropic_ratelimit_tokens_remaining="1",
    x_tidegate_cost="0",
    x_upstream_request_id="fake",
    retry_after="3",
    x_request_id="req_1",
)


def test_an_ai_provider_gives_what_is_listed() -> None:
    assert down(PROVIDER, "openai") == [
        (b"content-type", b"application/json"),
        (b"content-length", b"2"),
        (b"openai-processing-ms", b"5"),
        (b"retry-after", b"3"),
        (b"x-upstream-request-id", b"req_1"),
    ]
    assert (b"x-upstream-request-id", b"req_2") in down([(b"request-id", b"req_2")], "anthropic")


def test_a_worker_gives_what_is_end_to_end() -> None:
    raw = pairs(
        content_type="text/html",
        set_cookie="a=1",
        x_custom="1",
        server="gunicorn",
        etag="1",
        connection="close, x-hop, content-type",
        x_hop="1",
        keep_alive="1",
        transfer_encoding="chunked",
        x_tidegate_cost="0",
        x_accel_redirect="/private",
        x_accel_expires="1",
        x_reproxy_url="http://evil",
        x_request_id="w1",
    )
    assert [name for name, _ in down([*raw, (b"set-cookie", b"b=2")])] == [
        b"content-type",
        b"set-cookie",
        b"x-custom",
        b"server",
        b"etag",
        b"set-cookie",
        b"x-upstream-request-id",
    ]


def test_what_is_remembered_is_bounded_and_right() -> None:
    rules = RequestRules("http")
    rules.remembered_names = 10
    for number in range(100):
        raw = [(b"x-%d" % each, b"1") for each in range(number, number + 20)] + [(b"authorization", b"a")]
        kept = request_headers(raw, rules, UNTRUSTED)
        assert kept[:-2] == raw[:-1]
        assert len(rules._settled) <= 40


def test_an_unknown_kind_is_an_error() -> None:
    with pytest.raises(ValueError, match="openai, anthropic, http"):
        RequestRules("opnai")


def test_networks() -> None:
    networks = Networks(("10.0.0.0/8", "192.0.2.7", "2001:db8::/32"))
    inside = ["10.1.2.3", "192.0.2.7", "2001:db8::5", "::ffff:10.0.0.1"]
    assert [host in networks for host in inside] == [True] * 4
    assert [host in networks for host in ["192.0.2.8", "11.0.0.1", "2001:db9::1", "", "unix"]] == [False] * 5
    with pytest.raises(ValueError, match="10"):
        Networks(("10.0.0.0/33",))


def test_ipv6_clients_are_counted_by_64() -> None:
    peers = Peers(2, ())
    keys = [peers.enter(f"2001:db8::{number}") for number in (1, 2, 3)]
    assert [allowed for _, allowed in keys] == [True, True, False]
    assert peers.enter("2001:db8:0:1::1")[1]
    assert peers.enter("::ffff:192.0.2.1")[0] == peers.enter("192.0.2.1")[0]
    for key, _ in keys:
        peers.leave(key)
    assert peers.enter("2001:db8::9")[1]
