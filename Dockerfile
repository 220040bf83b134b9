# Two images: the service (`make image`, --target service) and the monitoring tools (`on-time release tools`, --target
# monitor). The commands create the context: the files of one commit and, for the service, a registered version in
# model/. Layers are reproducible: logs and caches are removed, and bytecode is validated by hash instead of time.
ARG BASE=python:3.11-slim-bookworm

FROM ${BASE} AS runtime
# OpenMP's runtime, for LightGBM. Not pinned: Debian's mirrors keep only the newest version.
# hadolint ignore=DL3008
RUN apt-get update \
 && apt-get install --yes --no-install-recommends libgomp1 \
 && rm -rf /var/lib/apt/lists/* /var/cache/* /var/log/*
ENV PATH=/opt/venv/bin:$PATH

# The locked packages without pip, tests, stubs and symbols (strip breaks the libraries in *.libs)
FROM runtime AS packages
# hadolint ignore=DL3008
RUN apt-get update && apt-get install --yes --no-install-recommends binutils && rm -rf /var/lib/apt/lists/*
ARG REQUIREMENTS=requirements.txt
COPY $REQUIREMENTS /tmp/requirements.txt
RUN python -m venv --without-pip /opt/venv \
 && pip --python /opt/venv/bin/python install --no-cache-dir --no-compile --no-deps --require-hashes \
      --requirement /tmp/requirements.txt \
 && find /opt/venv \( -type d -name tests -o -name '*.pyi' \) -prune -exec rm -rf {} + \
 && find /opt/venv -type d -name '*.libs' -prune -o -type f -name '*.so*' -exec strip --strip-unneeded {} + \
 && PYTHONHASHSEED=0 python -m compileall -q --invalidation-mode unchecked-hash /opt/venv/lib

# pyarrow without what Arrow streams do not need: 64 MB. Its core is linked to libraries that it does not call for them;
# empty ones replace these. libarrow_compute stays: it has symbols of a C++ runtime that is newer than Debian's.
FROM packages AS lean
WORKDIR /opt/venv/lib/python3.11/site-packages/pyarrow
RUN rm -rf include src includes parquet interchange ./*.pyx ./*.pxd ./*.pxi _*.so libarrow_flight* libarrow_python_* \
 && find . -name 'libarrow_python.so*' ! -name '*.so.????' -delete \
 && as -o /tmp/empty.o /dev/null \
 && for library in libarrow_acero.so.* libarrow_dataset.so.* libarrow_substrait.so.* libparquet.so.*; do \
      ld -shared -soname "$library" -o "$library" /tmp/empty.o || exit 1; \
    done

# The code and the model. The build fails if the model does not match the registry or its golden requests.
FROM lean AS code
ARG BUNDLE_DIGEST
WORKDIR /srv
COPY app app
COPY model model
RUN python -B -c "from app.registry.registered import load; from pathlib import Path; \
found = load(Path('model'), 'baked').bundle.digest; \
assert found == '$BUNDLE_DIGEST', f'model/ does not match the registry: {found}'" \
 && PYTHONHASHSEED=0 python -m compileall -q --invalidation-mode unchecked-hash app

FROM runtime AS service
COPY --from=lean /opt/venv /opt/venv
COPY --from=code /srv /srv
WORKDIR /srv
ARG COMMIT
ENV HOME=/tmp PYTHONDONTWRITEBYTECODE=1 ONTIME_HOST=0.0.0.0 ONTIME_PORT=8000 \
    ONTIME_BAKED_MODEL=/srv/model ONTIME_MODEL_CACHE=none ONTIME_JOURNAL_URL=none ONTIME_COMMIT=$COMMIT
USER 10001
EXPOSE 8000
HEALTHCHECK --interval=5s --timeout=3s --start-period=10s \
  CMD ["python", "-c", "import urllib.request; urllib.request.urlopen('http://127.0.0.1:8000/readyz', timeout=2)"]
CMD ["python", "-m", "app"]

# Monitoring tools: drift monitor, alert receiver, MLflow's server (REQUIREMENTS=requirements-monitor.txt)
FROM runtime AS monitor
# hadolint ignore=DL3008
RUN apt-get update \
 && apt-get install --yes --no-install-recommends git \
 && rm -rf /var/lib/apt/lists/* /var/cache/* /var/log/*
COPY --from=packages /opt/venv /opt/venv
COPY app /srv/app
COPY stages /srv/stages
COPY ops /srv/ops
COPY params.yaml data.dvc dvc.lock dvc.yaml /srv/
WORKDIR /srv
ENV HOME=/tmp PYTHONDONTWRITEBYTECODE=1 MLFLOW_DISABLE_TELEMETRY=true
RUN install --directory --owner 10001 /reports
USER 10001
CMD ["python", "-m", "ops.cli", "monitor", "drift"]
