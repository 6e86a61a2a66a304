# A small real Keystone for trying the services out: SQLite, one process, well-known passwords.
# Never for production.
ARG PYTHON=3.11

FROM python:${PYTHON}-slim
COPY tests/locks/keystone.lock /build/
RUN pip install --no-cache-dir --require-hashes --requirement /build/keystone.lock
COPY deploy/dev/keystone_setup.py /opt/keystone/
RUN useradd --uid 10002 --no-create-home --shell /usr/sbin/nologin keystone \
    && install -d -o keystone -g keystone -m 0700 /var/lib/keystone
VOLUME /var/lib/keystone
USER 10002:10002
EXPOSE 5000
HEALTHCHECK --interval=5s --timeout=5s --start-period=60s \
    CMD ["python", "-c", "import urllib.request as r; r.urlopen('http://127.0.0.1:5000/v3', timeout=4)"]
ENTRYPOINT ["python", "-P", "-W", "ignore", "/opt/keystone/keystone_setup.py", "contain", "/var/lib/keystone"]
