# The images service and the two libraries it stands on, nothing else. The context is the checkout:
#   docker build -f deploy/docker/images.Dockerfile -t diptych-images .
#   … --build-arg EXTRAS=otel   with an extra of the service's
#   … --target with-qemu        with qemu-img, for the plug-in image_conversion
ARG PYTHON=3.11

FROM python:${PYTHON}-slim AS build
WORKDIR /build
COPY requirements.lock ./
# The lock is for the whole workspace: uv comes from it, and then holds the service to it.
RUN sed -n '/^uv==/,/[^\\]$/p' requirements.lock > uv.txt \
    && pip install --no-cache-dir --require-hashes --requirement uv.txt \
    && uv venv --no-cache /opt/diptych
COPY libs libs
COPY services/images services/images
ARG EXTRAS=
RUN uv pip install --no-cache --no-sources --compile-bytecode --python /opt/diptych/bin/python \
    --constraints requirements.lock --build-constraints requirements.lock \
    ./libs/common ./libs/store "./services/images${EXTRAS:+[$EXTRAS]}"

FROM python:${PYTHON}-slim AS service
# Nothing is ever installed into a running service.
RUN pip uninstall --quiet --yes --root-user-action=ignore setuptools wheel pip \
    && useradd --uid 10001 --no-create-home --shell /usr/sbin/nologin diptych
COPY --from=build /opt/diptych /opt/diptych
ENV PATH=/opt/diptych/bin:$PATH

# Where a file store keeps its objects, if there is one.
RUN install -d -o diptych -g diptych -m 0750 /var/lib/diptych/images
VOLUME /var/lib/diptych/images

# Settings: /etc/diptych/images.conf, and DIPTYCH_IMAGES__SECTION__OPTION in the environment.
# The root file system may be read-only. Besides the volume, written are /dev/shm (counters) and
# /var/tmp (what import plug-ins work on).
USER 10001:10001
EXPOSE 9292
# Not /healthcheck, which also says no while a node is drained: an orchestrator would end it then.
HEALTHCHECK --interval=10s --timeout=5s --start-period=30s CMD ["python", "-c", "\
import os, urllib.request as r; \
port = os.environ.get('DIPTYCH_IMAGES__DEFAULT__BIND_PORT', '9292'); \
r.urlopen(f'http://127.0.0.1:{port}/livez', timeout=4)"]
# Running transfers finish first: give it the time that [DEFAULT] drain_delay and graceful_timeout
# say, and 30 s.
STOPSIGNAL SIGTERM
ENTRYPOINT ["diptych-images"]
CMD ["api"]

FROM service AS with-qemu
USER 0:0
# Of the release that the base image is, whichever that is.
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install --yes --no-install-recommends qemu-utils \
    && rm -rf /var/lib/apt/lists/*
USER 10001:10001

FROM service
