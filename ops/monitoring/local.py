"""`on-time monitor local`: the monitoring beside a service on this machine, by Debian's programs."""

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
FOLDERS = ("prometheus", "rules", "alertmanager")
PORTS = {"api": 8000, "drift": 8001, "receiver": 8002, "cadvisor": 8080, "node-exporter": 9100}
PORTS |= {"blackbox": 9115, "prometheus": 9090, "alertmanager": 9093, "grafana": 3000}
TARGETS = {f"{name}:{port}": f"127.0.0.1:{port}" for name, port in PORTS.items()}
"""The targets of ops/monitoring/config/prometheus/prometheus.yml, and their addresses on this machine."""

NOT_HERE = ("cadvisor", "grafana")
"""Jobs whose programs are not in Debian."""
DAY_SECONDS = 86400
DRIFT_RUN_SECONDS = 15

_DURATION = re.compile(r"\b(\d+)([smhd])\b")
_SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86400}
LEAST_MS = 1000


class ProgramMissing(OnTimeError):
    """A program of the monitoring is not installed."""


def faster(text: str, speed: float) -> str:
    """Return configuration or rules whose durations are divided by `speed`, none shorter than a second.

    A range stays at least five scrapes long, as a rate needs two.
    """

    def shorten(match: re.Match[str]) -> str:
        milliseconds = int(match[1]) * _SECONDS[match[2]] * 1000 / speed
        least = LEAST_MS * (5 if match.string[match.start() - 1] == "[" else 1)
        return f"{max(least, round(milliseconds))}ms" if int(match[1]) else match[0]

    return text if speed == 1 else _DURATION.sub(shorten, text)


class ProgramEnded(OnTimeError):
    """A program of the monitoring has ended."""


@dataclass(frozen=True)
class Site:
    """Addresses and speed; `targets` has an address for each target in the configuration."""

    folder: Path
    targets: Mapping[str, str]
    speed: float = 1
    token: str = ""
    week_seconds: float = 7 * DAY_SECONDS
    """Length of the drift monitor's window: a week, or the time in which one is replayed."""
    without: Sequence[str] = ()
    """Jobs to omit; without `cadvisor`, the rules on containers are omitted too."""

    def address(self, name: str) -> str:
        """Return the address on this machine of a target in the configuration."""
        return self.targets.get(name, TARGETS[name])

    def render(self, text: str) -> str:
        """Return a configuration with the addresses on this machine, and with this speed."""
        for name in TARGETS:
            text = text.replace(name, self.address(name))
        return faster(text, self.speed)

    def write(self) -> None:
        """Write the configuration of Prometheus, its exporter and Alertmanager from the files of the containers."""
        for source in (file for file in CONFIG.rglob("*.yml") if file.parent.name in FOLDERS):
            file = self.folder / source.relative_to(CONFIG)
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(self.render(source.read_text(encoding="utf-8")), encoding="utf-8")
        (self.folder / "prometheus" / blackbox.FILE.name).write_text(blackbox.configuration(), encoding="utf-8")
        self._leave_out()
        secrets = self.folder / "alertmanager" / "secrets"
        secrets.mkdir(exist_ok=True)
        (secrets / "receiver_token").write_text(self.token or "local", encoding="utf-8")

    def _leave_out(self) -> None:
        """Remove the jobs to omit from the configuration, so that no alert fires for them."""
        file = self.folder / "prometheus" / "prometheus.yml"
        content = yaml.safe_load(file.read_text(encoding="utf-8"))
        content["scrape_configs"] = [job for job in content["scrape_configs"] if job["job_name"] not in self.without]
        file.write_text(yaml.safe_dump(content, sort_keys=False), encoding="utf-8")
        if "cadvisor" in self.without:
            (file.parent / "rules" / "containers.yml").unlink()

    def commands(self) -> dict[str, list[str]]:
        """Return the arguments of each of Debian's programs."""

        def program(target: str, *arguments: str) -> list[str]:
            return [f"--web.listen-address={self.address(target)}", "--log.level=warn", *arguments]

        return {
            "prometheus": program(
                "prometheus:9090",
                f"--config.file={self.folder}/prometheus/prometheus.yml",
                f"--storage.tsdb.path={self.folder}/tsdb",
                f"--rules.alert.resend-delay={max(LEAST_MS, round(60_000 / self.speed))}ms",
            ),
            "prometheus-alertmanager": program(
                "alertmanager:9093",
                f"--config.file={self.folder}/alertmanager/alertmanager.yml",
                f"--storage.path={self.folder}/alerts",
                "--cluster.listen-address=",
            ),
            "prometheus-blackbox-exporter": program(
                "blackbox:9115", f"--config.file={self.folder}/prometheus/blackbox.yml"
            ),
            "prometheus-node-exporter": program(
                "node-exporter:9100",
                "--collector.disable-defaults",
                *(f"--collector.{name}" for name in ("filesystem", "cpu", "meminfo")),
            ),
        }

    def ours(self) -> dict[str, dict[str, str]]:
        """Return the settings of the drift monitor and of the receiver, by their commands."""
        drift_host, drift_port = self.address("drift:8001").split(":")
        host, port = self.address("receiver:8002").split(":")
        minutes = max(DRIFT_RUN_SECONDS / 60, 15 * self.week_seconds / (7 * DAY_SECONDS))
        window = {"ONTIME_DRIFT_WINDOW_HOURS": str(self.week_seconds / 3600)}
        drift = {
            "ONTIME_DRIFT_HOST": drift_host,
            "ONTIME_DRIFT_PORT": drift_port,
            "ONTIME_DRIFT_MINUTES": str(minutes),
            "ONTIME_DRIFT_REGISTRY_SECONDS": str(max(1.0, 30 / self.speed)),
        }
        receiver = {
            "ONTIME_RECEIVER_HOST": host,
            "ONTIME_RECEIVER_PORT": port,
            "ONTIME_RECEIVER_TOKEN_FILE": f"{self.folder}/alertmanager/secrets/receiver_token",
            "ONTIME_RECEIVER_SILENCE_SECONDS": str(max(10.0, 180 / self.speed)),
            "ONTIME_RECEIVER_RETRAIN_COMMAND": f"{sys.executable} -m ops.cli model retrain",
        }
        return {"monitor drift": window | drift, "monitor receiver": window | receiver}  # retraining uses the window


@contextlib.contextmanager
def started(
    commands: Mapping[str, list[str]], environment: Mapping[str, Mapping[str, str]]
) -> Iterator[dict[str, subprocess.Popen[bytes]]]:
    """Run programs until the block ends; those in `environment` are commands of ours."""
    for program in commands:
        if shutil.which(program) is None:
            raise ProgramMissing(f"{program} is not installed: apt install {program}")
    with contextlib.ExitStack() as stack:
        running = {}
        lines = {program: [program, *arguments] for program, arguments in commands.items()}
        lines |= {name: [sys.executable, "-m", "ops.cli", *name.split()] for name in environment}
        for name, line in lines.items():
            process = stack.enter_context(subprocess.Popen(line, env=os.environ | dict(environment.get(name, {}))))
            stack.callback(process.terminate)
            running[name] = process
        yield running


def watch(running: Mapping[str, subprocess.Popen[bytes]]) -> None:
    """Return never; raise ProgramEnded as soon as a program has ended."""
    while True:
        for name, process in running.items():
            if process.poll() is not None:
                raise ProgramEnded(f"{name} ended with {process.returncode}; its output is above.")
        time.sleep(0.5)


def watch_all(speed: float, week_seconds: float, cadvisor: str, service: str) -> None:
    """Run everything until interrupted; without the address of a cAdvisor, containers are not watched."""
    with tempfile.TemporaryDirectory(prefix="on-time-monitoring-") as folder:
        targets = TARGETS | {"api:8000": service, "cadvisor:8080": cadvisor}
        without = [job for job in NOT_HERE if job != "cadvisor" or not cadvisor]
        site = Site(Path(folder), targets, speed, week_seconds=week_seconds, without=without)
        site.write()
        signal.signal(signal.SIGTERM, signal.default_int_handler)  # it ends the programs as well
        with contextlib.suppress(KeyboardInterrupt), started(site.commands(), site.ours()) as running:
            print(f"Prometheus  http://{site.address('prometheus:9090')}/alerts")
            print(f"Alertmanager  http://{site.address('alertmanager:9093')}   Ctrl-C ends all of it.", flush=True)
            watch(running)
