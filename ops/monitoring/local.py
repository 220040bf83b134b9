"""`on-time monitor local`: the monitoring beside a service on this machine, by Debian's programs.

The committed configuration is copied with the addresses of this machine, and with shorter durations for a replay in
fast motion, so that this runs the configuration of Compose.
"""

import contextlib
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import yaml

from app.errors import OnTimeError
from ops.monitoring import blackbox

CONFIG = Path(__file__).resolve().parent / "config"
PORTS = {"api": 8000, "drift": 8001, "receiver": 8002, "cadvisor": 8080, "node-exporter": 9100}
PORTS |= {"blackbox": 9115, "prometheus": 9090, "alertmanager": 9093, "grafana": 3000}
TARGETS = {f"{name}:{port}": f"127.0.0.1:{port}" for name, port in PORTS.items()}
"""The targets of ops/monitoring/config/prometheus/prometheus.yml, and their addresses on this machine."""
NOT_HERE = ("cadvisor", "grafana")
"""Jobs whose programs are not in Debian."""
WEEK_SECONDS = 7 * 86400
SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86400}


class ProgramFailed(OnTimeError):
    """A program of the monitoring is not installed, or has ended."""


def faster(text: str, speed: float) -> str:
    """Return configuration or rules whose durations are divided by `speed`, none shorter than a second.

    A range stays at least five scrapes long, as a rate needs two.
    """

    def shorten(match: re.Match[str]) -> str:
        milliseconds = int(match[1]) * SECONDS[match[2]] * 1000 / speed
        least = 5000 if match.string[match.start() - 1] == "[" else 1000
        return f"{max(least, round(milliseconds))}ms" if int(match[1]) else match[0]

    return text if speed == 1 else re.sub(r"\b(\d+)([smhd])\b", shorten, text)


@dataclass(frozen=True)
class Site:
    """Addresses and speed; `targets` has an address for each target in the configuration."""

    folder: Path
    targets: Mapping[str, str]
    speed: float = 1
    token: str = "local"
    week_seconds: float = WEEK_SECONDS
    """Length of the drift monitor's window: a week of real or replayed time."""
    without: Sequence[str] = ()
    """Jobs to omit, so that no alert fires for them; without `cadvisor`, the rules on containers are omitted too."""

    def write(self) -> None:
        """Write the configuration of Prometheus, its exporter and Alertmanager from the files of the containers."""
        for source in CONFIG.rglob("*.yml"):
            if source.parent.name not in ("prometheus", "rules", "alertmanager"):
                continue
            text = source.read_text(encoding="utf-8")
            for name in TARGETS:
                text = text.replace(name, self.targets[name])
            file = self.folder / source.relative_to(CONFIG)
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(faster(text, self.speed), encoding="utf-8")
        folder = self.folder / "prometheus"
        (folder / blackbox.FILE.name).write_text(blackbox.configuration(), encoding="utf-8")
        content = yaml.safe_load((folder / "prometheus.yml").read_text(encoding="utf-8"))
        content["scrape_configs"] = [job for job in content["scrape_configs"] if job["job_name"] not in self.without]
        (folder / "prometheus.yml").write_text(yaml.safe_dump(content, sort_keys=False), encoding="utf-8")
        if "cadvisor" in self.without:
            (folder / "rules" / "containers.yml").unlink()
        secrets = self.folder / "alertmanager" / "secrets"
        secrets.mkdir(exist_ok=True)
        (secrets / "receiver_token").write_text(self.token, encoding="utf-8")

    def commands(self) -> dict[str, list[str]]:
        """Return the arguments of each of Debian's programs."""
        resend = max(1000, round(60_000 / self.speed))
        prometheus = [
            f"--config.file={self.folder}/prometheus/prometheus.yml",
            f"--storage.tsdb.path={self.folder}/tsdb",
        ]
        prometheus += [f"--rules.alert.resend-delay={resend}ms"]
        alertmanager = [f"--config.file={self.folder}/alertmanager/alertmanager.yml", "--cluster.listen-address="]
        alertmanager += [f"--storage.path={self.folder}/alerts"]
        blackbox_exporter = [f"--config.file={self.folder}/prometheus/blackbox.yml"]
        node = [f"--collector.{name}" for name in ("disable-defaults", "filesystem", "cpu", "meminfo")]
        programs = {
            "prometheus": ("prometheus:9090", prometheus),
            "prometheus-alertmanager": ("alertmanager:9093", alertmanager),
            "prometheus-blackbox-exporter": ("blackbox:9115", blackbox_exporter),
            "prometheus-node-exporter": ("node-exporter:9100", node),
        }
        return {
            program: [f"--web.listen-address={self.targets[target]}", "--log.level=warn", *arguments]
            for program, (target, arguments) in programs.items()
        }

    def ours(self) -> dict[str, dict[str, str]]:
        """Return the settings of the drift monitor and of the receiver, by their commands."""
        drift_host, drift_port = self.targets["drift:8001"].split(":")
        host, port = self.targets["receiver:8002"].split(":")
        window = str(self.week_seconds / 3600)  # retraining, which the receiver starts, uses the window too
        drift = {
            "ONTIME_DRIFT_WINDOW_HOURS": window,
            "ONTIME_DRIFT_HOST": drift_host,
            "ONTIME_DRIFT_PORT": drift_port,
            "ONTIME_DRIFT_MINUTES": str(max(0.25, 15 * self.week_seconds / WEEK_SECONDS)),
            "ONTIME_DRIFT_REGISTRY_SECONDS": str(max(1.0, 30 / self.speed)),
        }
        receiver = {
            "ONTIME_DRIFT_WINDOW_HOURS": window,
            "ONTIME_RECEIVER_HOST": host,
            "ONTIME_RECEIVER_PORT": port,
            "ONTIME_RECEIVER_TOKEN_FILE": f"{self.folder}/alertmanager/secrets/receiver_token",
            "ONTIME_RECEIVER_SILENCE_SECONDS": str(max(10.0, 180 / self.speed)),
            "ONTIME_RECEIVER_RETRAIN_COMMAND": f"{sys.executable} -m ops.cli model retrain",
        }
        return {"monitor drift": drift, "monitor receiver": receiver}


@contextlib.contextmanager
def started(
    commands: Mapping[str, list[str]], environment: Mapping[str, Mapping[str, str]]
) -> Iterator[dict[str, subprocess.Popen[bytes]]]:
    """Run programs until the block ends; those in `environment` are commands of ours."""
    for program in commands:
        if shutil.which(program) is None:
            raise ProgramFailed(f"{program} is not installed: apt install {program}")
    lines = {program: [program, *arguments] for program, arguments in commands.items()}
    lines |= {name: [sys.executable, "-m", "ops.cli", *name.split()] for name in environment}
    running = {}
    with contextlib.ExitStack() as stack:
        for name, line in lines.items():
            process = stack.enter_context(subprocess.Popen(line, env=os.environ | dict(environment.get(name, {}))))
            stack.callback(process.terminate)
            running[name] = process
        yield running


def watch(running: Mapping[str, subprocess.Popen[bytes]]) -> None:
    """Return never; raise ProgramFailed as soon as a program has ended."""
    while True:
        for name, process in running.items():
            if process.poll() is not None:
                raise ProgramFailed(f"{name} ended with {process.returncode}; its output is above.")
        time.sleep(0.5)


def watch_all(speed: float, week_seconds: float, cadvisor: str, service: str) -> None:
    """Run everything until interrupted; without the address of a cAdvisor, containers are not watched."""
    targets = TARGETS | {"api:8000": service, "cadvisor:8080": cadvisor}
    without = ["grafana"] if cadvisor else NOT_HERE
    with tempfile.TemporaryDirectory(prefix="on-time-monitoring-") as folder:
        site = Site(Path(folder), targets, speed, week_seconds=week_seconds, without=without)
        site.write()
        signal.signal(signal.SIGTERM, signal.default_int_handler)  # it ends the programs as well
        with contextlib.suppress(KeyboardInterrupt), started(site.commands(), site.ours()) as running:
            print(f"Prometheus  http://{targets['prometheus:9090']}/alerts")
            print(f"Alertmanager  http://{targets['alertmanager:9093']}   Ctrl-C ends all of it.", flush=True)
            watch(running)
