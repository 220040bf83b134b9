"""`on-time release audit` and `sbom`: known vulnerabilities of the locked packages, and what an image holds."""

import json
import re
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Sequence
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

from packageurl import PackageURL
from pydantic import BaseModel, Field, TypeAdapter, ValidationError
from python_on_whales import docker

from app.errors import Refused
from ops.release import image as images
from ops.release.docker import engine_errors, execute
from stages import tracked

REQUIREMENTS = "requirements.txt"
IGNORED_FILE = Path(__file__).with_name("audit-ignored.yml")
OS_RELEASE, DPKG, VENV = "usr/lib/os-release", "var/lib/dpkg/status", "opt/venv/pyvenv.cfg"
LISTED = re.compile(rf"{OS_RELEASE}|{DPKG}|{VENV}|.+/(site|dist)-packages/[^/]+\.(dist|egg)-info(/.+)?")
RUNNING = r"""set -e
. /etc/os-release; echo "$ID==$VERSION_ID"
dpkg-query -Wf '${Package}:${Architecture}==${Version} ${db:Status-Status}\n' |
  sed -E '/ (config-files|not-installed)$/d; s/ .*//'
for python in $(which -a python3); do "$python" -c "import importlib.metadata as m, platform as p
print('python==' + p.python_version(), *(d.name + '==' + d.version for d in m.distributions()), sep='\n')"; done"""


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


def _python_packages(folder: Path) -> dict[str, Any]:
    """Return cyclonedx-py's bill of the packages of every Python in an image's files."""
    paths = sorted({str(path.parent) for path in folder.rglob("*-packages/*-info")})
    python = folder / "python"  # stands for the image's interpreter: cyclonedx-py only takes its path
    python.write_text(f"#!/bin/sh\necho '{json.dumps(paths)}'\n", encoding="utf-8")
    python.chmod(0o755)
    command = [sys.executable, "-m", "cyclonedx_py", "environment", "--output-reproducible", "--spec-version", "1.6"]
    done = subprocess.run([*command, str(python)], capture_output=True, text=True, check=False)
    if done.returncode:
        raise AuditFailed(f"cyclonedx-py failed: {(done.stderr.strip().splitlines() or ['no output'])[-1]}")
    return dict(json.loads(done.stdout))


def _system(folder: Path) -> list[dict[str, str]]:
    """Return the components in an image's files that are no Python package: Debian, its packages, the interpreter."""
    release = dict(re.findall(r'^(\w+)="?(.*?)"?$', (folder / OS_RELEASE).read_text(encoding="utf-8"), re.MULTILINE))
    name, version = release["ID"], release["VERSION_ID"]
    python = re.findall(r"^version = (.+)$", (folder / VENV).read_text(encoding="utf-8"), re.MULTILINE)[0]
    rows = [(f"{name}=={version}", "operating-system", name, version, PackageURL("generic", None, name, version))]
    rows.append((f"python=={python}", "application", "python", python, PackageURL("generic", None, "python", python)))
    for stanza in (folder / DPKG).read_text(encoding="utf-8").strip().split("\n\n"):
        p = dict(re.findall(r"^(Package|Status|Version|Architecture): (.+)$", stanza, re.MULTILINE))
        if not p["Status"].endswith(("config-files", "not-installed")):
            facts = {"arch": p["Architecture"], "distro": f"{name}-{version}"}
            url = PackageURL("deb", name, p["Package"], p["Version"], facts)
            ref = f"{p['Package']}:{p['Architecture']}=={p['Version']}"
            rows.append((ref, "library", p["Package"], p["Version"], url))
    return [dict(zip(("bom-ref", "type", "name", "version", "purl"), map(str, row), strict=True)) for row in rows]


@engine_errors()
def check_sbom(bill: dict[str, Any], image: str) -> None:
    """Refuse a bill that differs from what dpkg and every Python report in the running image."""
    command = ["docker", "run", "--rm", "--network=none", "--user=0", "--entrypoint=sh", image, "-c", RUNNING]
    listed, running = {c["bom-ref"] for c in bill["components"]}, set(execute(command).splitlines())
    if odd := [f"{ref} {'is not listed' if ref in running else 'is not there'}" for ref in sorted(listed ^ running)]:
        way = "install packages by dpkg, or by pip into site-packages"
        raise AuditFailed(f"{image} runs with other packages than its files list: {', '.join(odd[:5])}: {way}.")


@engine_errors()
def sbom(image: str) -> Path:
    """Write the CycloneDX list of what an image's files hold, and check it; the same image gives the same file."""
    facts, digest = images.facts_of(image), (docker.image.inspect(image).id or "").removeprefix("sha256:")
    with tempfile.TemporaryDirectory(prefix="on-time-sbom-") as scratch:
        with docker.container.create(image) as container:
            docker.container.export(container, f"{scratch}/image.tar")
        with tarfile.open(f"{scratch}/image.tar") as archive:
            archive.extractall(scratch, [m for m in archive if LISTED.fullmatch(m.name)], filter="data")
        bill = _python_packages(Path(scratch))
        bill["components"] = sorted(bill["components"] + _system(Path(scratch)), key=lambda c: str(c["bom-ref"]))
    name, version = re.sub(r"@.*|:[^:/]*$", "", image), facts[f"{images.OCI}version"]
    itself = {"type": "container", "bom-ref": f"{name}=={version}", "name": name, "version": version}
    properties = [{"name": key, "value": value} for key, value in sorted(facts.items())]
    hashes = [{"alg": "SHA-256", "content": digest}]  # of the engine; the registry's is the attestation's subject
    bill["metadata"]["component"] = itself | {"hashes": hashes, "properties": properties}
    bill["dependencies"].append({"ref": itself["bom-ref"], "dependsOn": [c["bom-ref"] for c in bill["components"]]})
    check_sbom(bill, image)
    path = Path("build") / f"sbom-{re.sub(r'[^A-Za-z0-9.-]', '-', image)}.json"
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps(bill, indent=1, sort_keys=True) + "\n", encoding="utf-8")
    return path
