"""nginx from Debian as a plain proxy: one worker, kept-alive connections upstream, nothing buffered on the way down."""

from __future__ import annotations

import shutil

from loadtests.bench.errors import BenchError
from loadtests.bench.systems.base import System

CONFIGURATION = """\
daemon off;
worker_processes 1;
pid {folder}/nginx.pid;
error_log {folder}/error.log warn;
events {{ worker_connections 4096; }}
http {{
  access_log off;
  client_body_temp_path {folder}/body;
  proxy_temp_path {folder}/proxy;
  fastcgi_temp_path {folder}/fastcgi;
  uwsgi_temp_path {folder}/uwsgi;
  scgi_temp_path {folder}/scgi;
  client_body_buffer_size 128k;
  keepalive_requests 1000000000;
  upstream provider {{
    server 127.0.0.1:{upstream};
    keepalive 256;
    keepalive_requests 1000000000;
  }}
  server {{
    listen 127.0.0.1:{port} backlog=4096;
    location / {{
      proxy_pass http://provider;
      proxy_http_version 1.1;
      proxy_set_header Connection "";
      proxy_buffering off;
    }}
  }}
}}
"""


class Nginx(System):
    name = "nginx"
    what = "nginx (Debian), plain proxy"

    def install(self) -> None:
        if self._program() is None:
            raise BenchError("needs nginx: run scripts/setup system nginx")

    def configure(self) -> None:
        text = CONFIGURATION.format(folder=self.folder.resolve(), port=self.port, upstream=self.upstream_port)
        (self.folder / "nginx.conf").write_text(text)

    def command(self) -> list[str]:
        folder = self.folder.resolve()
        return [str(self._program()), "-p", str(folder), "-e", f"{folder}/error.log", "-c", f"{folder}/nginx.conf"]

    def settings(self) -> list[str]:
        return ["1 worker, no access log, upstream keepalive 256, proxy_buffering off, bodies kept in memory"]

    def _program(self) -> str | None:
        return shutil.which("nginx", path="/usr/sbin:/usr/local/sbin:/usr/bin:/usr/local/bin")
