# The artifacts service and the two libraries it stands on, nothing else. The context is the checkout:
#   docker build -f deploy/docker/artifacts.Dockerfile -t diptych-artifacts .
ARG PYTHON=3.11

FROM python:${PYTHON}-slim AS build
WORKDIR /build
COPY requirements.lock ./
# The lock is for the whole workspace: uv comes from it, and then holds the service to it.
RUN sed -n '/^uv==/,/[^\\]$/p' requirements.lock > uv.txt \
    && pip install --no-cache-dir --require-hashes --requirement uv.txt \
    && uv venv --no-cache /opt/diptych
COPY libs libs
COPY services/artifacts services/artifacts
RUN uv pip install --no-cache --no-sources --compile-bytecode --python /opt/diptych/bin/python \
    --constraints requirements.lock --build-constraints requirements.lock \
    ./libs/common ./libs/store ./services/artifacts

FROM python:${PYTHON}-slim
RUN useradd --uid 10001 --no-create-home --shell /usr/sbin/nologin diptych
COPY --from=build /opt/diptych /opt/diptych
ENV PATH=/opt/diptych/bin:$PATH

# Where a file store keeps its objects, if there is one.
RUN install -d -o diptych -g diptych -m 0750 /var/lib/diptych/artifacts
VOLUME /var/lib/diptych/artifacts

# Settings: /etc/diptych/artifacts.conf, and DIPTYCH_ARTIFACTS__SECTION__OPTION in the environment.
USER 10001:10001
EXPOSE 9494
HEALTHCHECK --interval=10s --timeout=5s --start-period=30s \
    CMD ["python", "-c", "import urllib.request as r; r.urlopen('http://127.0.0.1:9494/healthcheck', timeout=4)"]
# Running transfers finish first: give it the time that [DEFAULT] graceful_timeout says.
STOPSIGNAL SIGTERM
ENTRYPOINT ["diptych-artifacts"]
CMD ["api"]
