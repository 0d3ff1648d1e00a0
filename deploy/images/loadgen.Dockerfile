# Load generator, probe and command line. Build from the repository's root:
#   docker build -f deploy/images/loadgen.Dockerfile -t talkscope-loadgen .
# Build arguments as in exporter.Dockerfile.
ARG BASE=python:3.11.13-slim-bookworm

FROM ${BASE} AS build
ARG PIP_INDEX_URL
ENV PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_CACHE_DIR=1 PIP_NO_COMPILE=1
RUN python3 -m venv /opt/venv
COPY requirements/loadgen.txt /src/requirements.txt
RUN /opt/venv/bin/pip install --require-hashes -r /src/requirements.txt
COPY pyproject.toml README.md LICENSE /src/
COPY exporter /src/exporter
COPY loadgen /src/loadgen
COPY report /src/report
COPY talkscope /src/talkscope
RUN /opt/venv/bin/pip install --no-deps /src \
 && /opt/venv/bin/pip uninstall -y pip setuptools \
 && ln -s "$(cd /opt/venv && ls -d lib/python3.*/site-packages/loadgen)" /opt/venv/loadgen \
 && find /opt -name __pycache__ -prune -exec rm -rf {} +

FROM ${BASE}
LABEL org.opencontainers.image.title="talkscope-loadgen" \
      org.opencontainers.image.description="Load testing and probing of real-time talking heads" \
      org.opencontainers.image.licenses="Apache-2.0"
COPY --from=build /opt/venv /opt/venv
ENV PATH=/opt/venv/bin:$PATH PYTHONDONTWRITEBYTECODE=1 PYTHONUNBUFFERED=1 HOME=/tmp
USER 65532:65532
WORKDIR /tmp
STOPSIGNAL SIGTERM
ENTRYPOINT ["talkscope"]
CMD ["--help"]
