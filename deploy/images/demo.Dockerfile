# The real OpenTalking and OmniRT with stand-in models (deploy/demo), under Talkscope's agent. For
# looking at the stack without a deployment; not for production. Build from the repository's root:
#   docker build -f deploy/images/demo.Dockerfile -t talkscope-demo .
# Build arguments as in exporter.Dockerfile. 770 MB over its base.
ARG BASE=python:3.11.13-slim-bookworm

FROM ${BASE} AS build
ARG PIP_INDEX_URL
ENV PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_CACHE_DIR=1 PIP_NO_COMPILE=1
# The lists first, so that the environments are made anew only when these change.
COPY deploy/demo/install.py deploy/demo/requirements-*.txt /opt/demo/deploy/demo/
RUN python3 /opt/demo/deploy/demo/install.py --root /opt/demo/build/target \
 && find /opt/demo/build -name __pycache__ -prune -exec rm -rf {} +
COPY deploy/demo /opt/demo/deploy/demo
# The agent.
COPY exporter /opt/demo/exporter

FROM ${BASE}
LABEL org.opencontainers.image.title="talkscope-demo" \
      org.opencontainers.image.description="OpenTalking and OmniRT with stand-in models" \
      org.opencontainers.image.licenses="Apache-2.0"
COPY --from=build /opt/demo /opt/demo
ENV PYTHONDONTWRITEBYTECODE=1 PYTHONUNBUFFERED=1 HOME=/tmp
USER 65532:65532
WORKDIR /tmp
EXPOSE 8000
HEALTHCHECK --interval=10s --timeout=3s --start-period=60s \
  CMD ["python3", "-c", "import urllib.request as r; r.urlopen('http://127.0.0.1:8000/health', timeout=2)"]
STOPSIGNAL SIGTERM
ENTRYPOINT ["python3", "/opt/demo/deploy/demo/supervisor.py"]
CMD ["--mode=unified", "--dir=/tmp/demo", "--listen=0.0.0.0:8000", "--restart"]
