#!/bin/sh
# SeaweedFS as an S3 server: one identity, whose keys are in files.
set -eu
umask 077
secrets=${SECRETS:-/run/secrets}
cat >"${CONFIG:-/tmp/s3.json}" <<JSON
{"identities": [{"name": "on-time", "actions": ["Admin", "Read", "Write", "List", "Tagging"],
  "credentials": [{"accessKey": "$(cat "$secrets/s3_access_key")", "secretKey": "$(cat "$secrets/s3_secret_key")"}]}]}
JSON
exec weed server -dir="${DATA:-/data}" -s3 -s3.config="${CONFIG:-/tmp/s3.json}" -s3.port="${PORT:-8333}" \
  -volume.max=20 -volume.preStopSeconds=1 -master.volumeSizeLimitMB=1024 "$@"
