#!/bin/sh
# Makes the databases and their owners; the PostgreSQL image runs it once, as its superuser, on an empty volume.
set -eu
secrets=${SECRETS:-/run/secrets}
psql() { command psql --quiet --set ON_ERROR_STOP=1 --username "${POSTGRES_USER:-postgres}" "$@"; }
for name in mlflow journal; do
  psql --dbname postgres --set name="$name" --set password="$(cat "$secrets/${name}_db_password")" <<'SQL'
CREATE ROLE :"name" LOGIN PASSWORD :'password';
CREATE DATABASE :"name" OWNER :"name";
REVOKE CONNECT ON DATABASE :"name" FROM PUBLIC;
SQL
done
# the drift monitor reads the journal and nothing else
psql --dbname journal --set password="$(cat "$secrets/monitor_db_password")" <<'SQL'
CREATE ROLE monitor LOGIN PASSWORD :'password';
GRANT CONNECT ON DATABASE journal TO monitor;
ALTER DEFAULT PRIVILEGES FOR ROLE journal GRANT SELECT ON TABLES TO monitor;
SQL
