# The sidecar: no gevent, no aiortc, no av. Build from the repository's root:
#   docker build -f deploy/images/exporter.Dockerfile -t talkscope-exporter .
# Another base or a registry mirror: --build-arg BASE=registry.example.com/python:3.11-slim
# Another package index:             --build-arg PIP_INDEX_URL=https://pypi.example.com/simple
ARG BASE=python:3.11.13-slim-bookworm

FROM ${BASE} AS build
ARG PIP_INDEX_URL
ENV PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_CACHE_DIR=1 PIP_NO_COMPILE=1
RUN python3 -m venv /opt/venv
COPY requirements/exporter.txt /src/requirements.txt
RUN /opt/venv/bin/pip install --require-hashes -r /src/requirements.txt
COPY pyproject.toml README.md LICENSE /src/
COPY exporter /src/exporter
COPY loadgen /src/loadgen
COPY report /src/report
COPY talkscope /src/talkscope
# The agent's folder: mounted into OpenTalking's containers and put on its PYTHONPATH. With its
# dist-info, so that opentelemetry-instrument finds the entry point there.
RUN /opt/venv/bin/pip install --no-deps /src \
 && /opt/venv/bin/pip install --no-deps --target /opt/talkscope /src \
 && rm -rf /opt/talkscope/loadgen /opt/talkscope/report /opt/talkscope/talkscope /opt/talkscope/bin \
 && /opt/venv/bin/pip uninstall -y pip setuptools \
 && find /opt -name __pycache__ -prune -exec rm -rf {} + \
 && mkdir /opt/agent

FROM ${BASE}
LABEL org.opencontainers.image.title="talkscope-exporter" \
      org.opencontainers.image.description="Observability for real-time talking heads: the sidecar" \
      org.opencontainers.image.licenses="Apache-2.0"
COPY --from=build /opt/venv /opt/venv
COPY --from=build /opt/talkscope /opt/talkscope
# A new volume mounted here belongs to the user below, who copies /opt/talkscope into it for
# OpenTalking's containers: deploy/compose/agent.yaml.
COPY --from=build --chown=65532:65532 /opt/agent /agent
ENV PATH=/opt/venv/bin:$PATH PYTHONDONTWRITEBYTECODE=1 PYTHONUNBUFFERED=1 \
    TALKSCOPE_LISTEN=0.0.0.0:9109
USER 65532:65532
EXPOSE 9109
HEALTHCHECK --interval=10s --timeout=3s --start-period=10s \
  CMD ["python3", "-c", "import os, urllib.request as r; port = os.environ['TALKSCOPE_LISTEN'].rpartition(':')[2]; r.urlopen(f'http://127.0.0.1:{port}/healthz', timeout=2)"]
STOPSIGNAL SIGTERM
ENTRYPOINT ["python3", "-m", "exporter"]
