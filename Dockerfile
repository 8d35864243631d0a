# The service and nothing else: docs/deployment.md says how to run it and how to add handlers.
ARG PYTHON=3.13.9-slim-bookworm

FROM python:${PYTHON} AS build
WORKDIR /src
# The environment has no pip of its own: nothing is installed into it later.
RUN python -m venv --without-pip /opt/headrace
COPY deploy/requirements.txt .
RUN pip --python /opt/headrace/bin/python install --no-cache-dir --require-hashes --only-binary=:all: -r requirements.txt
COPY pyproject.toml README.md LICENSE ./
COPY config config
COPY connectors connectors
COPY handlers handlers
COPY router router
RUN pip --python /opt/headrace/bin/python install --no-cache-dir --no-deps .

FROM python:${PYTHON}
# tini is process 1: it ends what handlers leave behind, and a second SIGTERM reaches the service.
RUN apt-get update \
 && apt-get install -y --no-install-recommends 'tini=0.19.*' \
 && rm -rf /var/lib/apt/lists/* \
 && groupadd --gid 10001 headrace \
 && useradd --uid 10001 --gid headrace --home-dir /var/lib/headrace --shell /usr/sbin/nologin headrace \
 && install -d -o headrace -g headrace -m 0700 /var/lib/headrace \
 && install -d /etc/headrace
COPY --from=build /opt/headrace /opt/headrace
COPY --chmod=755 deploy/headrace-health /usr/local/bin/
ENV PATH=/opt/headrace/bin:$PATH \
    HEADRACE_CONFIG=/etc/headrace/headrace.yaml
USER 10001:10001
WORKDIR /var/lib/headrace
VOLUME /var/lib/headrace
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=30s --timeout=5s --start-period=60s --retries=3 \
    CMD ["headrace-health"]
ENTRYPOINT ["tini", "--", "headrace"]
CMD ["run"]
