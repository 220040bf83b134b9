# The service: app/ and what requirements.txt locks. The model comes from the registry at MLFLOW_TRACKING_URI.
FROM python:3.11-slim-bookworm AS packages
COPY requirements.txt /tmp/
RUN python -m venv /opt/venv && /opt/venv/bin/pip install --no-cache-dir --require-hashes --requirement /tmp/requirements.txt

FROM python:3.11-slim-bookworm
# LightGBM needs OpenMP's runtime
RUN apt-get update \
 && apt-get install --yes --no-install-recommends libgomp1 \
 && rm -rf /var/lib/apt/lists/*
COPY --from=packages /opt/venv /opt/venv
COPY app /srv/app
WORKDIR /srv
ENV PATH=/opt/venv/bin:$PATH HOME=/tmp ONTIME_HOST=0.0.0.0 PYTHONDONTWRITEBYTECODE=1
USER 10001
EXPOSE 8000
HEALTHCHECK --interval=10s --timeout=3s CMD ["python", "-c", "import urllib.request; urllib.request.urlopen('http://127.0.0.1:8000/livez', timeout=2)"]
CMD ["python", "-m", "app"]
