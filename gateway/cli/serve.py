"""`tidegate serve`: runs the gateway until it is told to stop."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import time
from typing import TYPE_CHECKING, Annotated, Any

import typer

from gateway.cli.flags import ConfigOption, DataDirOption, ListenOption, SetOption, flags, loaded_or_exit

if TYPE_CHECKING:
    from gateway.app import Gateway
    from gateway.config import Loaded
    from gateway.server.ending import Server


def serve(
    config: ConfigOption = None,
    listen: ListenOption = None,
    data_dir: DataDirOption = None,
    protocol: Annotated[str | None, typer.Option(help="native, or httptools for stock uvicorn.")] = None,
    log_format: Annotated[str | None, typer.Option(help="auto, text or json.")] = None,
    log_level: Annotated[str | None, typer.Option(help="debug, info, warning or error.")] = None,
    watch: Annotated[bool | None, typer.Option("--watch/--no-watch", help="Reload when the file changes.")] = None,
    set_: SetOption = None,
) -> None:
    """Run the gateway. An empty configuration runs: with no provider key, a fake provider answers."""
    from gateway import garbage

    garbage.hold()
    given = flags(
        set_,
        listen=listen,
        data_dir=data_dir,
        protocol=protocol,
        log_format=log_format,
        log_level=log_level,
        watch=None if watch is None else str(watch).lower(),
    )
    raise typer.Exit(run(loaded_or_exit(config, given=given)))


def run(loaded: Loaded) -> int:
    """Serves until SIGTERM or SIGINT; gives the exit code."""
    import uvloop

    from gateway.config import ConfigError
    from gateway.directory import DirectoryError
    from gateway.records.store import RecordsError

    try:
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            return runner.run(_serve(loaded))
    except ConfigError as error:
        from gateway.config import show_problems

        show_problems(error)
    except (RecordsError, DirectoryError, OSError) as error:
        typer.echo(f"tidegate can't start: {error}", err=True)
    except KeyboardInterrupt:
        return 0
    return 1


async def _serve(loaded: Loaded) -> int:
    from gateway import garbage
    from gateway.app import Gateway
    from gateway.pricelist import warm
    from gateway.server.backlog import Backlog, listeners

    gateway = Gateway(loaded)
    listener = _bind(loaded)
    try:
        await gateway.open()
        server = _server(gateway, loaded)
        began = time.monotonic()
        garbage.settle()
        _on_hangup(gateway)
        watcher = asyncio.ensure_future(_watch(gateway)) if loaded.settings.server.watch else None
        gateway.overload.accept_wait_s = Backlog(listener, server.opened).wait_s
        serving = asyncio.ensure_future(server.serve(sockets=listeners(listener)))
        while not server.started and not serving.done():  # noqa: ASYNC110 (uvicorn has no event for it)
            await asyncio.sleep(0.005)
        if server.started:
            announce(gateway, listener.getsockname())
            gateway.background(asyncio.to_thread(warm))
        await serving
        if watcher is not None:
            watcher.cancel()
    finally:
        listener.close()
        await gateway.aclose()
    _log().info("stopped; everything is recorded", uptime_s=round(time.monotonic() - began, 1))
    return 0


def _bind(loaded: Loaded) -> Any:
    """The listening socket, before anything else is opened: a port in use must not cost a second."""
    import socket

    settings = loaded.settings.server
    family = socket.AF_INET6 if ":" in settings.host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((settings.host, settings.port))
    except OSError as error:
        listener.close()
        raise OSError(f"can't listen on {settings.listen}: {error.strerror}. Choose another with --listen.") from None
    listener.setblocking(False)
    return listener


def _server(gateway: Gateway, loaded: Loaded) -> Server:
    import uvicorn

    from gateway.server.ending import Server
    from gateway.server.limits import WireLimits
    from gateway.server.protocol import protocol_class

    settings = loaded.settings.server
    limits = WireLimits(
        header_timeout_s=settings.header_timeout_s,
        body_timeout_s=settings.body_timeout_s,
        min_body_rate=settings.min_body_rate,
        keep_alive_s=settings.keep_alive_s,
        write_timeout_s=settings.write_timeout_s,
        max_body_bytes=0,  # the application bounds bodies itself, in the caller's dialect
        min_read_rate=loaded.settings.overload.min_read_rate,
        max_unsent_bytes=loaded.settings.overload.unsent_limit,
        max_headers=settings.max_headers,
        prefix=settings.root_path,
        max_header_bytes=settings.max_header_bytes,
        max_connections_per_address=settings.max_connections_per_address,
        # one address speaks for many behind a proxy
        uncapped=tuple(str(network) for network in (*settings.uncapped, *settings.trusted_proxies)),
    )
    config = uvicorn.Config(
        gateway,
        http=protocol_class(limits) if settings.protocol == "native" else "httptools",
        ws="none",
        lifespan="off",
        loop="none",
        access_log=False,
        log_config=None,
        proxy_headers=False,
        server_header=False,
        backlog=4096,
        timeout_keep_alive=int(settings.keep_alive_s),
    )
    return Server(config, gateway, settings.drain_s, settings.drain_accept_s)


def _on_hangup(gateway: Gateway) -> None:
    def reload() -> None:
        gateway.background(_reload(gateway))

    asyncio.get_running_loop().add_signal_handler(signal.SIGHUP, reload)


async def _watch(gateway: Gateway) -> None:
    """Reloads when the configuration file says something else. Its folder is watched, since editors and Kubernetes put
    another file in its place."""
    from watchfiles import awatch

    path = gateway.loaded.path
    if path is None:
        return
    seen = path.read_bytes()
    async for _ in awatch(path.absolute().parent, watch_filter=None, recursive=False):
        try:
            text = path.read_bytes()
        except OSError:
            continue  # between the old file and the new one
        if text != seen:
            seen = text
            await _reload(gateway)


async def _reload(gateway: Gateway) -> None:
    log = _log()
    try:
        result = await gateway.reload()
    except Exception as error:
        log.error("reload refused; the configuration in force stays", reason=str(error))
        return
    log.info("configuration reloaded", **result)


def announce(gateway: Gateway, address: tuple[Any, ...]) -> None:
    """Where to point clients, and the first keys, once: in a few lines for people, as one line for a log of JSON."""
    host, port = address[0], address[1]
    shown = "127.0.0.1" if host in ("0.0.0.0", "::") else f"[{host}]" if ":" in str(host) else host  # noqa: S104
    base = f"http://{shown}:{port}{gateway.loaded.settings.server.root_path}"
    gateway.address = base
    keys = gateway.first_keys
    told = {
        "openai_base_url": f"{base}/v1",
        "anthropic_base_url": base,
        "configuration": str(gateway.loaded.path or ""),
        "data_dir": str(gateway.loaded.settings.server.data_dir),
        "providers": _providers(gateway),
        "first_keys": keys.path if keys is not None else "",
    }
    if gateway.log.is_json:
        _log().info(f"Tidegate {version()} is ready", **told)
    if not gateway.log.is_json or sys.stderr.isatty():
        _banner(gateway, told)


def _providers(gateway: Gateway) -> str:
    if gateway.demo:
        return "FAKE: no provider key found, models demo-small and demo-large answer offline"
    from gateway.config import effective

    live = effective(gateway.loaded.settings, os.environ)
    return ", ".join(live.providers) or "none, only workers"


def _banner(gateway: Gateway, told: dict[str, str]) -> None:
    base = told["anthropic_base_url"]
    lines = [
        f"Tidegate {version()} is ready",
        f"  OpenAI base URL     {told['openai_base_url']}",
        f"  Anthropic base URL  {base}",
        f"  Health, metrics     {base}/health  {base}/metrics",
        f"  Configuration       {told['configuration'] or 'none (defaults; `tidegate init` writes one)'}",
        f"  Data                {told['data_dir']}",
        f"  Providers           {told['providers']}",
    ]
    keys = gateway.first_keys
    if keys is not None and keys.path:
        lines.append(f"  First keys          written to {keys.path} (readable by you only; move them and delete it)")
    elif keys is not None:
        lines.append("  First keys          shown once, now:")
        lines += [
            f"    {role:<7} {secret}" for role, secret in (("admin", keys.admin), ("client", keys.client)) if secret
        ]
    out = sys.stderr
    if out.isatty() and not os.environ.get("NO_COLOR"):
        lines[0] = f"\x1b[1;36m{lines[0]}\x1b[0m"
    print("\n".join(lines), file=out, flush=True)


def _log() -> Any:
    """Imported when there is something to say: a wrong configuration is told sooner without it."""
    import structlog

    return structlog.get_logger()


def version() -> str:
    from gateway import __version__

    return __version__
