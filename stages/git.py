"""Run git."""

from __future__ import annotations

import subprocess

from app.errors import OnTimeError


class GitFailed(OnTimeError):
    """A git command failed."""


def git(*arguments: str) -> str:
    """Run git in the working directory and return its output; raise GitFailed if it fails."""
    done = subprocess.run(["git", *arguments], capture_output=True, text=True, check=False)
    if done.returncode:
        raise GitFailed(f"`git {' '.join(arguments[:3])}` failed: {done.stderr.strip()[-300:]}")
    return done.stdout
