"""`on-time stack credentials`: the files that ops/stack/compose mounts as secrets; existing files are kept."""

import secrets
import subprocess
from pathlib import Path

from ops.monitoring import blackbox

FOLDER = Path("ops/stack/compose/secrets")
RANDOM = (
    *("postgres_password", "mlflow_db_password", "journal_db_password", "monitor_db_password"),
    *("s3_access_key", "s3_secret_key", "mlflow_password", "grafana_password", "receiver_token"),
)
DATABASE = "postgresql+psycopg://{role}:{password}@postgres:5432/journal"


def write_secrets(folder: Path) -> list[str]:
    """Write the secrets that are missing, each 192 random bits or made of others; return their names.

    The configuration of the blackbox exporter is written each time, with the API key in `probe_key` if there is one.
    The files can be read by the containers' users; the folder, by its owner alone.
    """
    folder.mkdir(parents=True, exist_ok=True)
    folder.chmod(0o700)
    made = [_write(folder, name, secrets.token_hex(24)) for name in RANDOM]
    journal, monitor = ((folder / f"{role}_db_password").read_text().strip() for role in ("journal", "monitor"))
    for part, role, password in (("api", "journal", journal), ("drift", "monitor", monitor)):
        (folder / part).mkdir(exist_ok=True)
        made.append(_write(folder / part, "ONTIME_JOURNAL_URL", DATABASE.format(role=role, password=password)))
    if not (folder / "mlflow_users").exists():
        password = (folder / "mlflow_password").read_text(encoding="utf-8") + "\n"
        command = ["caddy", "hash-password", "--algorithm", "bcrypt", "--bcrypt-cost", "10"]
        hashed = subprocess.run(command, input=password, capture_output=True, text=True, check=True).stdout.strip()
        made.append(_write(folder, "mlflow_users", f"on-time {hashed}\n"))
    key = (folder / "probe_key").read_text(encoding="utf-8").strip() if (folder / "probe_key").exists() else ""
    (folder / "blackbox.yml").unlink(missing_ok=True)  # the example of the problem may have changed
    _write(folder, "blackbox.yml", blackbox.configuration(key))
    return [name for name in made if name]


def _write(folder: Path, name: str, value: str) -> str:
    path = folder / name
    if path.exists():
        return ""
    path.write_text(value, encoding="utf-8")
    path.chmod(0o444)
    return name
