"""`on-time release audit` and `sbom`: known vulnerabilities of the locked packages, and what an image holds."""

import json
import re
import subprocess
import sys
from collections.abc import Sequence
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

from pydantic import BaseModel, Field, TypeAdapter, ValidationError
from python_on_whales import docker

from app.errors import Refused
from ops.release import images
from ops.release.docker import engine_errors, execute
from stages.base import yaml_files

REQUIREMENTS = "requirements.txt"
IGNORED_FILE = Path(__file__).with_name("audit-ignored.yml")
CATALOGERS = "dpkg-db-cataloger,python-installed-package-cataloger"
RUNNING = r"""set -e
dpkg-query -Wf 'deb:${Package}==${Version} ${db:Status-Status}\n' | sed -E '/ (config-files|not-installed)$/d; s/ .*//'
for python in $(which -a python3); do "$python" -c "import importlib.metadata as m
print(*('pypi:' + d.name + '==' + d.version for d in m.distributions()), sep='\n')"; done"""
"""Prints what dpkg and every Python of a running image report."""


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
        return TypeAdapter(list[Ignored]).validate_python(yaml_files.load(path) or [])
    except ValidationError as err:
        first = err.errors()[0]
        raise AuditFailed(f"{path}, entry {'.'.join(map(str, first['loc']))}: {first['msg']}.") from err


def find_problems(dependencies: Sequence[dict[str, Any]], entries: Sequence[Ignored], today: date) -> list[str]:
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


def audit_packages() -> str:
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
    reasons = find_problems(dependencies, entries, datetime.now(UTC).date())
    if reasons:
        raise AuditFailed(f"{REQUIREMENTS} does not pass the audit:\n  " + "\n  ".join(reasons))
    return f"{len(dependencies)} packages: no known vulnerability, {len(entries)} exceptions."


def packages_of(bill: dict[str, Any]) -> set[str]:
    """Return the packages of a bill as RUNNING prints them; names of Python packages are normalised."""
    rows = set()
    for component in bill["components"]:
        kind = component.get("purl", "").removeprefix("pkg:").partition("/")[0]
        if kind:
            rows.add(_normal(f"{kind}:{component['name']}=={component['version']}"))
    return rows


def _normal(line: str) -> str:
    kind, _, package = line.partition(":")
    name, _, version = package.partition("==")
    if kind == "pypi":
        name = re.sub(r"[-_.]+", "-", name).lower()
    return f"{kind}:{name}=={version}"


@engine_errors()
def check_sbom(bill: dict[str, Any], image: str) -> None:
    """Refuse a bill that differs from what dpkg and every Python report in the running image."""
    command = ["docker", "run", "--rm", "--network=none", "--user=0", "--entrypoint=sh", image, "-c", RUNNING]
    listed = packages_of(bill)
    running = {_normal(line) for line in execute(command).splitlines()}
    problems = [f"{package} is not listed" for package in sorted(running - listed)]
    problems += [f"{package} is not there" for package in sorted(listed - running)]
    if problems:
        advice = "install packages by dpkg, or by pip into site-packages"
        raise AuditFailed(f"{image} runs with other packages than its files list: {', '.join(problems[:5])}: {advice}.")


@engine_errors()
def write_sbom(image: str) -> Path:
    """Write syft's CycloneDX list of an image's packages, and check it; the same image gives the same file."""
    facts = images.facts_of(image)
    name, version = re.sub(r"@.*|:[^:/]*$", "", image), facts[f"{images.OCI}version"]
    syft = str(Path(sys.executable).with_name("syft"))
    command = [syft, "scan", "--quiet", "--override-default-catalogers", CATALOGERS, "--output", "cyclonedx-json"]
    done = subprocess.run([*command, f"docker:{image}"], capture_output=True, text=True, check=False)
    if done.returncode:
        raise AuditFailed(f"syft failed: {(done.stderr.strip().splitlines() or ['no output'])[-1]}")
    bill = json.loads(done.stdout)
    del bill["serialNumber"], bill["metadata"]["timestamp"]  # they differ from run to run
    digest = (docker.image.inspect(image).id or "").removeprefix("sha256:")
    hashes = [{"alg": "SHA-256", "content": digest}]  # of the engine; the registry's is the attestation's subject
    bill["metadata"]["component"] |= {"name": name, "version": version, "hashes": hashes}
    check_sbom(bill, image)
    path = Path("build") / f"sbom-{re.sub(r'[^A-Za-z0-9.-]', '-', image)}.json"
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps(bill, indent=1, sort_keys=True) + "\n", encoding="utf-8")
    return path
