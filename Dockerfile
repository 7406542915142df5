# The gateway with its embedded default (SQLite, no Redis).
#   docker build -t tidegate . && docker run -p 8080:8080 -v tidegate:/data tidegate
# The first keys are in the volume: docker exec CONTAINER cat /data/first-keys.txt
# Configuration: mount a gateway.toml at /etc/tidegate/gateway.toml and add `-c /etc/tidegate/gateway.toml`.

FROM python:3.11-slim AS build
ENV PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_CACHE_DIR=1 PIP_ROOT_USER_ACTION=ignore
WORKDIR /src
RUN python -m venv /opt/tidegate
# Before the source, so that a change of it does not install everything again. Hashes are checked.
COPY requirements/run.lock requirements/run.lock
RUN /opt/tidegate/bin/pip install --require-hashes -r requirements/run.lock
COPY pyproject.toml README.md LICENSE ./
COPY gateway gateway
COPY policies policies
RUN /opt/tidegate/bin/pip install --no-deps .

FROM python:3.11-slim
LABEL org.opencontainers.image.title="tidegate" \
      org.opencontainers.image.description="ASGI gateway between services and AI providers" \
      org.opencontainers.image.licenses="MIT"
ENV PATH=/opt/tidegate/bin:$PATH PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1
RUN groupadd --system --gid 10001 tidegate \
    && useradd --system --uid 10001 --gid 10001 --home-dir /data --shell /usr/sbin/nologin tidegate \
    && install -d -o tidegate -g tidegate -m 0700 /data
COPY --from=build /opt/tidegate /opt/tidegate
USER 10001:10001
WORKDIR /data
VOLUME /data
EXPOSE 8080
# Alive, not ready: a gateway that drains or waits for its store must not be killed for it.
HEALTHCHECK --interval=10s --timeout=3s --start-period=10s --retries=3 \
    CMD ["python", "-c", "import urllib.request as r; r.build_opener(r.ProxyHandler({})).open('http://127.0.0.1:8080/livez', timeout=2).read()"]
ENTRYPOINT ["tidegate", "serve", "--listen", "0.0.0.0:8080", "--data-dir", "/data"]
