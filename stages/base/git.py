"""Run git; its refusals are errors with the command that helps."""

from __future__ import annotations

import os
import re
import subprocess
from pathlib import Path

from app.errors import OnTimeError

INHERITED = ("GIT_DIR", "GIT_WORK_TREE", "GIT_INDEX_FILE", "GIT_OBJECT_DIRECTORY")
"""Variables that a hook sets for its own repository; they would take precedence over the working directory."""
REFUSALS = {
    r"dubious ownership in repository at '(.+)'": "{0} belongs to another user, so git refuses it: "
    "`git config --global --add safe.directory {0}` permits it.",
    r"not a git repository: (.+)/worktrees/": "the repository of this worktree is not at {0} any more: "
    "`git worktree repair` in the main checkout repairs it.",
    r"not a git repository": "this folder is in no git repository, and a model is registered with its commit: use a "
    "clone, or make a repository here: `git init && git add --all && git commit --message 'First commit'`.",
    r"index file (smaller|corrupt)|bad signature|unknown index": "git's index is damaged: "
    "`rm .git/index && git reset`.",
    r"unsafe repository": 'git refuses this repository: `git config --global --add safe.directory "$PWD"` permits it.',
}


class GitFailed(OnTimeError):
    """Git is missing, refuses the working directory, or failed."""


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    """Run git in the working directory, with any exit code; raise GitFailed if git is missing or rejects the folder."""
    env = {name: value for name, value in os.environ.items() if name not in INHERITED} | {"LC_ALL": "C"}
    try:
        done = subprocess.run(["git", *arguments], capture_output=True, text=True, check=False, env=env)
    except OSError as err:
        raise GitFailed(f"git does not start: {err.strerror}. Debian: `apt install git`.") from err
    for sign, text in REFUSALS.items() if done.returncode else ():
        found = re.search(sign, done.stderr)
        if found:
            raise GitFailed(text.format(*found.groups()))
    return done


def git(*arguments: str) -> str:
    """Run git in the working directory and return its output; raise GitFailed if it fails."""
    done = run(*arguments)
    if done.returncode:
        reason = " ".join(done.stderr.split())[-300:]
        raise GitFailed(f"`git {' '.join(arguments[:3])}` failed: {reason}")
    return done.stdout


def show(revision: str, path: Path) -> str | None:
    """Return the text of a file in a commit, None where the commit lacks it; raise GitFailed if it cannot be read."""
    done = run("show", f"{revision}:./{path}")
    if done.returncode and not re.search("does not exist in|but not in", done.stderr):
        reason = " ".join(done.stderr.split())
        raise GitFailed(f"{path} of {revision[:9]} cannot be read: {reason}. `git fsck` checks the repository.")
    return None if done.returncode else done.stdout


def commit() -> str:
    """Return the commit that is checked out; raise GitFailed if there is none."""
    done = run("rev-parse", "--verify", "--quiet", "HEAD")
    if done.returncode:
        raise GitFailed("this repository has no commit yet: `git add --all && git commit --message 'First commit'`.")
    return done.stdout.strip()
