"""Request the service from inside its container (`docker exec … python - < ops/release/probe.py`).

It needs no packages, no network and no port, so it works on a container that has neither, on this machine and over SSH.
"""

import http.client
import json
import os
import sys
import time
from pathlib import Path
from typing import Any

HEADERS = {"Content-Type": "application/json", "X-API-Key": os.environ.get("PROBE_KEY", "")}
PORT = int(os.environ.get("ONTIME_PORT") or 8000)
TOLERANCE = 1e-9


def ask(method: str, path: str, body: object = None) -> tuple[int, str]:
    """Return status and body of the response; status 0 if the service is unreachable."""
    connection = http.client.HTTPConnection("127.0.0.1", PORT, timeout=5)
    try:
        connection.request(method, path, None if body is None else json.dumps(body), HEADERS)
        response = connection.getresponse()
        return response.status, response.read().decode()
    except OSError as err:
        return 0, str(err)
    finally:
        connection.close()


def wait(seconds: float) -> dict[str, Any]:
    """Wait until /readyz is 200; return it with /version, the time, and the processor time used until then.

    `at` is in seconds since 1970, `cpu_seconds` the processor time of the service, which other work does not lengthen.
    """
    end = time.monotonic() + seconds
    while True:
        status, body = ask("GET", "/readyz")
        if status == 200 or time.monotonic() > end:
            ticks = Path("/proc/1/stat").read_text(encoding="utf-8").rpartition(")")[2].split()[11:13]
            used = sum(map(int, ticks)) / os.sysconf("SC_CLK_TCK")
            found = {"status": status, "body": body[:500], "at": time.time(), "cpu_seconds": used}
            return found | {"version": ask("GET", "/version")[1]}
        time.sleep(0.05)


def replay(seconds: float, rate: float) -> dict[str, Any]:
    """Replay the golden requests of the image's bundle at a rate; count wrong responses and measure latency."""
    manifest = Path(os.environ["ONTIME_BAKED_MODEL"]) / "manifest.json"
    golden = json.loads(manifest.read_text(encoding="utf-8"))["golden"]
    taken: list[float] = []
    errors: list[str] = []
    started = time.perf_counter()
    while len(taken) < len(golden) or time.perf_counter() - started < seconds:
        item = golden[len(taken) % len(golden)]
        begun = time.perf_counter()
        status, body = ask("POST", "/predict", item["request"])
        taken.append(time.perf_counter() - begun)
        if status != 200:
            errors.append(f"{status}: {body[:200]}")
        elif abs(json.loads(body)["probability"] - item["probability"]) > TOLERANCE:
            errors.append(f"{body[:200]} instead of {item['probability']}")
        time.sleep(max(0.0, len(taken) / rate - (time.perf_counter() - started)))
    p95 = sorted(taken)[int(0.95 * (len(taken) - 1))]
    return {"requests": len(taken), "errors": len(errors), "first": errors[:1], "p95_ms": p95 * 1000}


def main() -> None:
    """Do one of: wait SECONDS, replay SECONDS RATE, get PATH; print JSON."""
    command, *arguments = sys.argv[1:]
    if command == "wait":
        print(json.dumps(wait(float(arguments[0]))))
    elif command == "replay":
        print(json.dumps(replay(*map(float, arguments))))
    else:
        status, body = ask("GET", arguments[0])
        print(json.dumps({"status": status, "body": body}))


if __name__ == "__main__":
    main()
