"""The scenes of the rehearsal: what a team does to a small project, and what its workflows must make of it."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from app.errors import OnTimeError
from ops.rehearsal import gh, scratch
from ops.rehearsal.runner import FOREIGN, ROOT, Done, Event, Runner

POLICY = {
    "floors": {"roc_auc": 0.6, "pr_auc": 0.35, "log_loss": 0.58, "brier": 0.2, "ece": 0.2, "top_precision": 0.45},
    "leak_roc_auc": 0.9,
    "brier_skill": 0.01,
    "log_loss_gain": 0.0,
    "slices": ["origin=EWR", "origin=JFK", "origin=LGA"],
}
RATES = {"base": 0.07, "worse": 0.004, "better": 0.1}  # of learning, with as many rounds


class SceneFailed(OnTimeError):
    """A workflow did not do what it promises."""


@dataclass
class Stage:
    """A developer's clone, the shared repository and its runners."""

    dev: Path
    runner: Runner

    def make(self, *verb: str, **environment: str) -> None:
        """Run a verb as the developer does."""
        env = {name: value for name, value in os.environ.items() if not name.startswith(FOREIGN)} | environment
        command = ["make", "--no-print-directory", "--old-file=.venv/.ready", *verb]
        done = subprocess.run(
            command, cwd=self.dev, env=env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False
        )
        if done.returncode != 0:
            raise SceneFailed(f"`make {' '.join(verb)}` failed in {self.dev}:\n{done.stdout[-3000:]}")

    def branch(self, name: str) -> None:
        """Start a branch from main, with main's outputs."""
        scratch.git(self.dev, "checkout", "--quiet", "--force", "-B", name, "main")
        self.make("outputs")

    def set_rate(self, name: str) -> None:
        """Change the learning rate."""
        p = scratch.read_params(self.dev)
        p["train"]["learning_rate"] = RATES[name]
        scratch.write_params(self.dev, p)

    def push(self, message: str) -> str:
        """Commit and push the present branch; return the commit."""
        made = scratch.commit(self.dev, message)
        scratch.git(self.dev, "push", "--quiet", "--force", "origin", "HEAD")
        return made


def prepared(work: Path, say: Callable[[Done], None]) -> Stage:
    """Make the small project with a first model, its shared repository and its data remote."""
    dev, origin = work / "dev", work / "origin.git"
    dev.mkdir()
    scratch.copy_tree(ROOT, dev)
    shutil.copytree(ROOT / "data", dev / "data")
    (dev / ".venv").symlink_to(ROOT / ".venv")
    p = scratch.cut(dev, every=3)
    p["gate"] |= POLICY
    p["train"] |= {"rounds": 40, "learning_rate": RATES["base"]}
    scratch.write_params(dev, p)
    scratch.git(dev, "init", "--quiet", "--initial-branch=main")
    scratch.git(work, "init", "--quiet", "--bare", "--initial-branch=main", str(origin))
    scratch.git(dev, "remote", "add", "origin", str(origin))
    dvc(dev, "remote", "add", "--default", "shared", str(work / "remote"))
    dvc(dev, "add", "--quiet", "data")
    programs = gh.install(work / "bin", work / "github.json", ROOT)
    stage = Stage(dev, Runner(origin, work, programs, say))
    scratch.commit(dev, "A small project")
    stage.make("repro")
    dvc(dev, "push", "--quiet", "data")
    stage.push("Its first model")
    shutil.copytree(dev / ".dvc/cache", stage.runner.cache)
    return stage


def dvc(path: Path, *arguments: str) -> None:
    """Run DVC in a project."""
    subprocess.run([sys.executable, "-m", "dvc", *arguments], cwd=path, check=True, stdout=subprocess.DEVNULL)


def expect(done: list[Done], red: str, says: list[str]) -> None:
    """Check that a run is red at this verb and nowhere else (green with ""), and that all of this is in its output."""
    failed = [step.step for step in done if step.status == "failed"]
    if failed != [red] * bool(red):
        tails = "\n".join(step.output[-2000:] for step in done if step.status == "failed")
        raise SceneFailed(f"red at {failed or 'nothing'}, not at {red or 'nothing'}.\n{tails}")
    output = "\n".join(step.output for step in done)
    if missing := [text for text in says if text not in output]:
        raise SceneFailed(f"{red or 'the run'} does not say {missing}:\n{output[-3000:]}")


def unchanged(stage: Stage) -> list[Done]:
    """Nothing changed: the job `model` runs no stage."""
    stage.branch("docs")
    (stage.dev / "README.md").write_text("Another text.\n", encoding="utf-8")
    stage.push("Change a text")
    done = stage.runner.run("ci.yml", Event("docs"), ("model",))
    expect(done, "", ["### Gate: passed"])
    executed = [line for step in done for line in step.output.splitlines() if line.startswith("Running stage")]
    if executed:
        raise SceneFailed(f"nothing changed, but the job ran {executed}.")
    return done


def bad_row(stage: Stage) -> list[Done]:
    """One flight of the new data has a negative distance: the job `data` is red, with the rule that it breaks."""
    stage.branch("new-data")
    table = stage.dev / "data/flights.csv"
    lines = table.read_text(encoding="utf-8").splitlines()
    column = lines[0].split(",").index("distance")
    row = lines[100].split(",")
    row[column] = "-5"
    lines[100] = ",".join(row)
    table.unlink()  # may be a link into DVC's cache
    table.write_text("\n".join(lines) + "\n", encoding="utf-8")
    p = scratch.read_params(stage.dev)
    scratch.pin(stage.dev, p, "flights")
    scratch.write_params(stage.dev, p)
    dvc(stage.dev, "add", "--quiet", "data")
    dvc(stage.dev, "push", "--quiet", "data")
    stage.push("Take new data")
    done = stage.runner.run("ci.yml", Event("new-data"), ("data",))
    expect(done, "make check-data", ["flights.route_length"])
    return done


def no_lock(stage: Stage) -> list[Done]:
    """A parameter changes and the lock does not: the job `lock` is red, with the parameter and the way out."""
    stage.branch("no-lock")
    stage.set_rate("better")
    stage.push("Learn faster, and forget the lock")
    done = stage.runner.run("ci.yml", Event("no-lock"), ("lock",))
    expect(done, "make check-lock", ["train.learning_rate: 0.07 → 0.1", "make repro"])
    return done


def worse(stage: Stage) -> list[Done]:
    """A model gets worse: the job `model` is red at the gate, and the pull request has the table as a comment."""
    stage.branch("worse")
    stage.set_rate("worse")
    stage.make("repro")
    commit = stage.push("Learn slowly")
    done = stage.runner.run("ci.yml", Event("worse"), ("model",), run_id="7")
    expect(done, "make gate", ["### Gate: refused", "| log_loss (regression) |", "**FAIL**"])
    return done + comment(stage, "worse", commit, "7", "failure")


def comment(stage: Stage, branch: str, commit: str, run_id: str, conclusion: str) -> list[Done]:
    """The workflow that comments on the pull request of a fork, twice: there is one comment, with the table."""
    label = f"stranger:{branch}"
    run: dict[str, object] = {
        "head_sha": commit,
        "head_branch": branch,
        "head_repository": {"owner": {"login": "stranger"}},
    }
    run |= {"run_number": int(run_id), "html_url": "https://example.com/run", "conclusion": conclusion}

    def open_pull(state: dict[str, object]) -> None:
        state["runs"] = {run_id: run}
        state["pulls"] = [{"number": 12, "head": {"label": label, "sha": commit}}]
        state["comments"] = {}

    stage.runner.change(open_pull)
    event = {"event": {"workflow_run": {"id": run_id, "event": "pull_request"}}}
    for _ in range(2):
        done = stage.runner.run("comment.yml", Event("main", event))
        expect(done, "", [])
    comments = stage.runner.change(lambda state: None)["comments"]["12"]
    if len(comments) != 1 or "| log_loss |" not in comments[0]["body"]:
        raise SceneFailed(f"the pull request has not one comment with the metrics, but {comments}.")
    return done


def drift(stage: Stage) -> list[Done]:
    """An alert asks for a new model: it is proposed as a pull request, with the comparison, and main stays as it is."""
    stage.runner.change(lambda state: state.update(pulls=[]))
    before = scratch.git(stage.runner.origin, "rev-parse", "main")
    done = stage.runner.run("retrain.yml", Event("main", {"event": {"client_payload": {"reason": "CalibrationOff"}}}))
    expect(done, "", ["proposes the new model"])
    (pull,) = stage.runner.change(lambda state: None)["pulls"]
    missing = [text for text in ("Why: CalibrationOff", "### Gate", "| log_loss |") if text not in pull["body"]]
    proposed = scratch.git(stage.runner.origin, "diff", "--name-only", "main", "retrain").split()
    if missing or scratch.git(stage.runner.origin, "rev-parse", "main") != before or "dvc.lock" not in proposed:
        raise SceneFailed(
            f"the pull request lacks {missing}, changes {proposed}, or main has moved:\n{pull['body'][:2000]}"
        )
    return done


SCENES: dict[str, Callable[[Stage], list[Done]]] = {
    "unchanged": unchanged,
    "bad-row": bad_row,
    "no-lock": no_lock,
    "worse": worse,
    "drift": drift,
}
