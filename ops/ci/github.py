"""Calls of GitHub's API by workflows, through `gh`: comments, deployments, pull requests.

The workflow sets GITHUB_REPOSITORY, GITHUB_SHA and GH_TOKEN in the environment.
"""

import json
import os
import re
import subprocess
import tempfile
from pathlib import Path
from typing import Any

from app.errors import OnTimeError
from stages.base.git import git

EMAIL = "on-time@users.noreply.github.com"
"""Author of the commits of a retraining."""
LOGIN = ("-c", "credential.helper=!gh auth git-credential")
MARKER = "<!-- on-time: report -->"
LONGEST = 60_000  # characters; GitHub's limit is 65,536


class GitHubRefused(OnTimeError):
    """GitHub's client failed, or a variable that it requires is missing."""


def setting(name: str) -> str:
    """Return a variable of the environment that a workflow sets; raise GitHubRefused without it."""
    value = os.environ.get(name, "")
    if not value:
        raise GitHubRefused(f"{name} is not set: the workflow that calls this command sets it, see .github/workflows.")
    return value


def append(variable: str, text: str) -> None:
    """Append text to the file that GitHub names by a variable; nothing outside of a workflow."""
    path = os.environ.get(variable)
    if path:
        with Path(path).open("a", encoding="utf-8") as file:
            file.write(text)


def output(**values: str) -> None:
    """Set output values of a workflow's step; do nothing outside a workflow."""
    append("GITHUB_OUTPUT", "".join(f"{name}={value}\n" for name, value in values.items()))


def gh(*arguments: str, body: Any = None, check: bool = True) -> str:
    """Run `gh` and return its output; `body` is passed to its standard input as JSON."""
    command, text = ["gh", *arguments], None
    if body is not None:
        command += ["--input", "-"]
        text = json.dumps(body)
    done = subprocess.run(command, input=text, capture_output=True, text=True, check=False)
    if check and done.returncode != 0:
        raise GitHubRefused(f"`gh {' '.join(arguments[:4])}` failed: {done.stderr.strip()[-300:]}")
    return done.stdout


def api(path: str, method: str = "GET", body: Any = None, paginate: bool = False) -> Any:
    """Call GitHub's API under this repository, and return the response."""
    address = f"repos/{setting('GITHUB_REPOSITORY')}/{path}"
    return json.loads(gh("api", "--method", method, address, *["--paginate"] * paginate, body=body) or "null")


def pull_request(workflow_run: dict[str, Any]) -> int | None:
    """Return the open pull request whose head is the commit of a workflow run; None if the branch has newer commits."""
    head = f"{workflow_run['head_repository']['owner']['login']}:{workflow_run['head_branch']}"
    found = api(f"pulls?state=open&head={head}")
    return next((int(pull["number"]) for pull in found if pull["head"]["sha"] == workflow_run["head_sha"]), None)


def report_of(run_id: str) -> str:
    """Return the report among a run's artifacts; empty when the run has none."""
    with tempfile.TemporaryDirectory() as folder:
        name = setting("GITHUB_REPOSITORY")
        gh("run", "download", run_id, "--repo", name, "--name", "report", "--dir", folder, check=False)
        found = Path(folder) / "report.md"
        return found.read_text(encoding="utf-8", errors="replace") if found.is_file() else ""


def harmless(text: str) -> str:
    """Sanitise untrusted Markdown: remove mentions, HTML comments and links, and limit its length."""
    text = text.replace("<!--", "").replace("@", "&#64;")
    text = re.sub(r"https?://|www\.", "", text).replace("](", "] (")
    return text if len(text) <= LONGEST else text[:LONGEST] + "\n\n(cut: the rest is in the run's summary)"


def body_of(workflow_run: dict[str, Any], report: str) -> str:
    """Return the comment: the run's result from GitHub's API, then the report."""
    link = f"[run {workflow_run['run_number']}]({workflow_run['html_url']})"
    verdict = f"`ci` on {workflow_run['head_sha'][:9]}: **{workflow_run['conclusion']}** ({link})"
    return "\n\n".join([MARKER, verdict, harmless(report) or "The run ended before it made a report."])


def comment(run_id: str) -> str:
    """Put the report of a workflow run on its pull request: one comment, which later runs update."""
    workflow_run = api(f"actions/runs/{run_id}")
    number = pull_request(workflow_run)
    if number is None:
        return f"No open pull request has {workflow_run['head_sha'][:9]} as its head: nothing to comment on."
    body = {"body": body_of(workflow_run, report_of(run_id))}
    comments = api(f"issues/{number}/comments?per_page=100", paginate=True)
    found = [c["id"] for c in comments if c["body"].startswith(MARKER) and c["user"]["type"] == "Bot"]
    if found:
        api(f"issues/comments/{found[0]}", "PATCH", body)
        return f"The comment on pull request {number} has the report of run {workflow_run['run_number']}."
    api(f"issues/{number}/comments", "POST", body)
    return f"Pull request {number} has the report of run {workflow_run['run_number']} as a comment."


def deployment(environment: str, version: str, image: str, why: str) -> str:
    """Record a successful deployment, with model version and image, as a deployment at GitHub."""
    body = {
        "ref": setting("GITHUB_SHA"),
        "task": "deploy:model",
        "environment": environment,
        "description": f"model version {version}: {why}"[:140],
        "payload": {"model_version": version, "image": image, "reason": why},
        "auto_merge": False,
        "required_contexts": [],
    }
    made = api("deployments", "POST", body)
    status = {"state": "success", "description": f"model-v{version}", "environment": environment}
    api(f"deployments/{made['id']}/statuses", "POST", status)
    return f"Recorded: {environment} runs model version {version}, {image}."


def known_head(branch: str) -> str:
    """Return the remote's head of a branch, empty if there is none; raise GitHubRefused for commits of others."""
    line = git(*LOGIN, "ls-remote", "origin", f"refs/heads/{branch}")
    if not line:
        return ""
    git(*LOGIN, "fetch", "--quiet", "origin", "main", branch)
    authors = git("log", "--format=%ae", line.split()[0], "--not", "origin/main")
    others = sorted(set(authors.split()) - {EMAIL})
    if others:
        raise GitHubRefused(
            f"the branch {branch} has commits of {', '.join(others)}, which stay: merge or close its pull request, "
            "and retrain again."
        )
    return line.split()[0]


def propose(why: str) -> str:
    """Open a pull request with the changes of a retraining, or update the open one; main is not changed."""
    paths = ["dvc.lock", "data.dvc", "params.yaml", "reports"]
    if not git("status", "--porcelain", "--", *paths).strip():
        return "The pipeline gave the same model again: there is nothing to propose."
    branch = "retrain"
    identity = ["-c", "user.name=on-time", "-c", f"user.email={EMAIL}"]
    known = known_head(branch)
    git("checkout", "-B", branch)
    git("add", "--", *paths)
    git(*identity, "commit", "--message", f"Retrain the model\n\n{why}")
    lease = f"--force-with-lease=refs/heads/{branch}:{known}"  # refused if somebody pushes meanwhile
    git(*LOGIN, "push", lease, "origin", f"HEAD:refs/heads/{branch}")
    report = Path("build/report/report.md").read_text(encoding="utf-8")[:LONGEST]
    body = {"body": f"Why: {why}\n\n{report}"}
    opened = api(f"pulls?state=open&head={setting('GITHUB_REPOSITORY').partition('/')[0]}:{branch}")
    if opened:
        api(f"pulls/{opened[0]['number']}", "PATCH", body)
        return f"Pull request {opened[0]['number']} has the new model."
    made = api("pulls", "POST", body | {"title": "Retrain the model", "head": branch, "base": "main"})
    return f"Pull request {made['number']} proposes the new model."
