"""`on-time release audit` and `sbom`: known vulnerabilities of the locked packages, and what an image holds."""

import json
import re
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

from pydantic import BaseModel, Field, TypeAdapter, ValidationError
from python_on_whales import docker

from app.errors import Refused
from ops.release import image as images
from ops.release.docker import engine_errors
from stages import tracked

REQUIREMENTS = "requirements.txt"
IGNORED_FILE = Path(__file__).with_name("audit-ignored.yml")
SITE_PACKAGES = "/opt/venv/lib/python3.11/site-packages"


class AuditFailed(Refused):
    """A vulnerability is known, or the audit is incomplete."""


class Ignored(BaseModel, extra="forbid", frozen=True):
    """An exception: a known vulnerability that is accepted until a day."""

    id: str
    package: str
    reason: str = Field(min_length=10)
    expires: date


def ignored(path: Path) -> list[Ignored]:
    """Return the exceptions of a file; raise AuditFailed for one without reason or last day."""
    try:
        return TypeAdapter(list[Ignored]).validate_python(tracked.load(path) or [])
    except ValidationError as err:
        first = err.errors()[0]
        raise AuditFailed(f"{path}, entry {'.'.join(map(str, first['loc']))}: {first['msg']}.") from err


def judge(dependencies: Sequence[dict[str, Any]], entries: Sequence[Ignored], today: date) -> list[str]:
    """Return the findings in pip-audit's result: vulnerabilities, packages not audited, outdated exceptions."""
    if not dependencies:
        return ["nothing was audited"]
    skipped = [d["name"] for d in dependencies if "skip_reason" in d]
    exceptions = {(e.package, e.id) for e in entries if e.expires >= today}
    used: set[tuple[str, str]] = set()
    findings = [f"{e.id} ({e.package}): the exception has expired on {e.expires}" for e in entries if e.expires < today]
    for d in dependencies:
        for v in d.get("vulns", []):
            names = {(d["name"], name) for name in (v["id"], *v.get("aliases", []))}
            used |= names
            if not names & exceptions:
                fixed = ", ".join(v.get("fix_versions", [])) or "no version yet"
                findings.append(f"{d['name']} {d['version']}: {v['id']}, fixed in {fixed}")
    unused = [e for e in entries if (e.package, e.id) not in used and e.package not in skipped]
    findings += [f"{e.id} ({e.package}) is not found any more: delete the entry" for e in unused]
    if skipped:
        findings.append(f"{len(skipped)} packages were not audited: {', '.join(skipped[:3])}")
    return findings


def audit() -> str:
    """Run pip-audit on every locked package; raise AuditFailed with all findings."""
    entries = ignored(IGNORED_FILE)
    command = [sys.executable, "-m", "pip_audit", "--requirement", REQUIREMENTS, "--require-hashes", "--disable-pip"]
    command += ["--format", "json", "--progress-spinner", "off"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    try:
        dependencies = json.loads(done.stdout)["dependencies"]
    except (ValueError, KeyError) as err:
        message = (done.stderr.strip().splitlines() or ["no output"])[-1][:300]
        raise AuditFailed(f"pip-audit did not reach the vulnerability service: {message}") from err
    if reasons := judge(dependencies, entries, datetime.now(UTC).date()):
        raise AuditFailed(f"{REQUIREMENTS} does not pass the audit:\n  " + "\n  ".join(reasons))
    return f"{len(dependencies)} packages: no known vulnerability, {len(entries)} exceptions."


@engine_errors()
def sbom(image: str) -> Path:
    """Write the CycloneDX list of the Python packages that are in an image; the same image gives the same file."""
    facts = images.facts_of(image)
    path = Path("build") / f"sbom-{re.sub(r'[^A-Za-z0-9.-]', '-', image)}.json"
    path.parent.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory() as scratch:
        with docker.container.create(image) as container:
            docker.container.copy((container, SITE_PACKAGES), scratch)
        python = Path(scratch) / "python"  # stands for the image's interpreter: cyclonedx-py only takes its path
        python.write_text(f"#!/bin/sh\necho '[\"{scratch}/site-packages\"]'\n", encoding="utf-8")
        python.chmod(0o755)
        command = [sys.executable, "-m", "cyclonedx_py", "environment", "--output-reproducible", "--pyproject"]
        command += ["pyproject.toml", "--output-file", str(path), str(python)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise AuditFailed(f"cyclonedx-py failed on {image}: {done.stderr.strip().splitlines()[-1]}")
    bill = json.loads(path.read_text(encoding="utf-8"))
    properties = [{"name": name, "value": value} for name, value in sorted(facts.items())]
    bill["metadata"]["properties"] = [*bill["metadata"].get("properties", []), *properties]
    path.write_text(json.dumps(bill, indent=1, sort_keys=True) + "\n", encoding="utf-8")
    return path
