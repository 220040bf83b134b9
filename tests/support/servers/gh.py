"""A stand-in for GitHub's client `gh`: what our verbs ask of it, answered from a JSON file and recorded there."""

from __future__ import annotations

import json
import os
import re
import shutil
import sys
from pathlib import Path
from typing import Any

EMPTY: dict[str, Any] = {
    "runs": {},  # by id, as GitHub's API describes them
    "artifacts": {},  # by run and name: a folder
    "pulls": [],
    "comments": {},  # by pull request
    "deployments": [],
    "attested": [],  # digests, each with the type of what was said of it
}


def read() -> dict[str, Any]:
    """Return the state."""
    return dict(json.loads(Path(os.environ["PRETEND_GITHUB"]).read_text(encoding="utf-8")))


def write(state: dict[str, Any]) -> None:
    """Keep the state."""
    Path(os.environ["PRETEND_GITHUB"]).write_text(json.dumps(state, indent=1), encoding="utf-8")


def install(folder: Path, state: Path, root: Path) -> Path:
    """Write a program `gh` and an empty state; return the folder for PATH."""
    folder.mkdir(parents=True, exist_ok=True)
    state.write_text(json.dumps(EMPTY), encoding="utf-8")
    code = f"import sys; sys.path.insert(0, {str(root)!r}); from tests.support.servers import gh; sys.exit(gh.main())"
    (folder / "gh").write_text(f"#!{sys.executable}\n{code}\n", encoding="utf-8")
    (folder / "gh").chmod(0o755)
    return folder


def answer(method: str, path: str, body: Any, state: dict[str, Any]) -> Any:
    """Answer one call of the API; KeyError for one that no verb of ours makes."""
    path, _, query = path.partition("?")
    asked = dict(pair.split("=", 1) for pair in query.split("&") if pair)
    owner, (kind, *rest) = path.split("/")[1], path.split("/")[3:]
    found: Any = None
    match method, kind, rest:
        case "GET", "actions", ["runs", run_id]:
            found = state["runs"][run_id]
        case "GET", "pulls", []:
            found = [pull for pull in state["pulls"] if pull["head"]["label"] == asked["head"]]
        case "POST", "pulls", []:
            found = body | {"number": len(state["pulls"]) + 1, "head": {"label": f"{owner}:{body['head']}", "sha": ""}}
            state["pulls"].append(found)
        case "PATCH", "pulls", [number]:
            found = state["pulls"][int(number) - 1]
            found.update(body)
        case "GET", "issues", [number, "comments"]:
            found = state["comments"].get(number, [])
        case "POST", "issues", [number, "comments"]:
            comments = state["comments"].setdefault(number, [])
            found = body | {"id": 1000 + len(comments), "user": {"type": "Bot"}}
            comments.append(found)
        case "PATCH", "issues", ["comments", comment]:
            found = next(c for comments in state["comments"].values() for c in comments if str(c["id"]) == comment)
            found.update(body)
        case "POST", "deployments", []:
            found = body | {"id": len(state["deployments"]), "statuses": []}
            state["deployments"].append(found)
        case "POST", "deployments", [number, "statuses"]:
            found = body
            state["deployments"][int(number)]["statuses"].append(found)
        case _:
            raise KeyError(f"{method} {path}")
    return found


def main() -> int:
    """Answer `gh api`, `gh run download` and `gh attestation verify`; 1 for anything else."""
    arguments, state = sys.argv[1:], read()
    if arguments[0] == "api":
        method, path = arguments[arguments.index("--method") + 1], arguments[3]
        body = json.load(sys.stdin) if "--input" in arguments else None
        print(json.dumps(answer(method, path, body, state)))
        write(state)
        return 0
    if arguments[:2] == ["run", "download"]:
        name, folder = arguments[arguments.index("--name") + 1], arguments[arguments.index("--dir") + 1]
        made = state["artifacts"].get(arguments[2], {}).get(name)
        if made is None:
            print("no valid artifacts found to download", file=sys.stderr)
            return 1
        shutil.copytree(made, folder, dirs_exist_ok=True)
        return 0
    if arguments[:2] == ["attestation", "verify"]:
        digest, what = re.findall(r"sha256:[0-9a-f]{64}", arguments[2]), arguments[-1]
        return 0 if f"{digest[0]} {what}" in state["attested"] else 1
    print(f"the stand-in for gh does not know {arguments}", file=sys.stderr)
    return 1
