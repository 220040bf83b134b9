#!/bin/sh
# MLflow's server: runs in PostgreSQL, artifacts in S3. The gate in front of it requires a password (mlflow.Caddyfile).
set -eu
secrets=${SECRETS:-/run/secrets}
AWS_ACCESS_KEY_ID=$(cat "$secrets/s3_access_key")
AWS_SECRET_ACCESS_KEY=$(cat "$secrets/s3_secret_key")
MLFLOW_BACKEND_STORE_URI="postgresql+psycopg://mlflow:$(cat "$secrets/mlflow_db_password")@${POSTGRES:-postgres:5432}/mlflow"
export AWS_ACCESS_KEY_ID AWS_SECRET_ACCESS_KEY MLFLOW_BACKEND_STORE_URI
export MLFLOW_S3_ENDPOINT_URL="${S3:-http://storage:8333}" AWS_DEFAULT_REGION=us-east-1
export MLFLOW_DISABLE_TELEMETRY=true MLFLOW_ALLOW_PICKLE_DESERIALIZATION=false
python - <<'PYTHON'
import os

import boto3

storage = boto3.client("s3", endpoint_url=os.environ["MLFLOW_S3_ENDPOINT_URL"])
have = {bucket["Name"] for bucket in storage.list_buckets()["Buckets"]}
for name in {"mlflow", "dvc"} - have:
    storage.create_bucket(Bucket=name)
PYTHON
exec mlflow server --host "${LISTEN:-0.0.0.0}" --port "${PORT:-5000}" --workers "${WORKERS:-2}" \
  --artifacts-destination s3://mlflow --allowed-hosts "${ALLOWED_HOSTS:-mlflow:5000}"
