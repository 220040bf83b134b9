"""Which tests run, how long each may take, and what was skipped.

There are three lists. The short tests run by default (`make test`). The tests marked `long` protect `main`, too:
`.ci/run` runs them. Those marked `nightly` run each night, and with `make test-all`. A long or nightly test also runs
where the command line names its file or an expression of marks.
"""

from __future__ import annotations

import os
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from tabulate import tabulate

LONG_FOLDERS = ("system", "adapt", "ray")
NIGHTLY_FOLDERS = ("ray",)
CONTRACTS = ("test_journal.py",)
"""Files whose variants on PostgreSQL are long; those of other files are nightly."""
SMALL_SECONDS = 600
"""Limit of a test that may have to run the small pipeline first."""
LONG_SECONDS = 1800
LEFT_OUT = pytest.StashKey[int]()


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the option."""
    parser.addoption("--all", action="store_true", help="run the long tests too: all that this machine can run")


def pytest_configure(config: pytest.Config) -> None:
    """Register the mark."""
    config.addinivalue_line("markers", "long: only runs in .ci/run, with --all, or when its file is named")
    config.addinivalue_line("markers", "nightly: a long test that .ci/run omits")


def pytest_itemcollected(item: pytest.Item) -> None:
    """Mark the tests of some folders and the variants on PostgreSQL, and set the limits."""
    root = item.config.rootpath
    other_variant = on_postgresql(item) and item.path.name not in CONTRACTS
    if within(item.path, root, NIGHTLY_FOLDERS) or other_variant:
        item.add_marker(pytest.mark.nightly)
    if within(item.path, root, LONG_FOLDERS) or on_postgresql(item) or item.get_closest_marker("nightly"):
        item.add_marker(pytest.mark.long)
    seconds = limit(item)
    if seconds and not item.get_closest_marker("timeout"):
        item.add_marker(pytest.mark.timeout(seconds))


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Deselect the long tests that were not called for."""
    if config.option.all or config.option.markexpr:
        return
    named = named_paths(config)
    left_out = [item for item in items if item.get_closest_marker("long")]
    left_out = [item for item in left_out if not named & {item.path, *item.path.parents}]
    config.stash[LEFT_OUT] = len(left_out)
    output = getattr(config, "workeroutput", None)
    if output is not None:  # a process of pytest-xdist, which reports to the one that prints
        output["left_out"] = len(left_out)
    if left_out:
        config.hook.pytest_deselected(items=left_out)
        items[:] = [item for item in items if item not in set(left_out)]


def within(path: Path, root: Path, folders: tuple[str, ...]) -> bool:
    """Return whether a path is, or is within, one of these folders of tests."""
    return any(path.is_relative_to(root / "tests" / folder) for folder in folders)


def on_postgresql(item: pytest.Item) -> bool:
    """Return whether a test is the variant on a real PostgreSQL of one that also runs on SQLite."""
    variant = getattr(item, "callspec", None)
    return variant is not None and "postgresql" in variant.params.values()


def limit(item: pytest.Item) -> float:
    """Return the seconds that a test may take, 0 for the default of pyproject.toml."""
    if item.get_closest_marker("long"):
        return LONG_SECONDS
    return SMALL_SECONDS if "small" in getattr(item, "fixturenames", ()) else 0


def named_paths(config: pytest.Config) -> set[Path]:
    """Return the files, and the folders of long tests, that the command line names."""
    if config.args_source is not pytest.Config.ArgsSource.ARGS:
        return set()
    paths = {(config.invocation_params.dir / argument.partition("::")[0]).resolve() for argument in config.args}
    return {path for path in paths if path.is_file() or within(path, config.rootpath, LONG_FOLDERS)}


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node: Any) -> None:
    """Take the number of omitted tests from a process of pytest-xdist; each has collected all tests."""
    output = getattr(node, "workeroutput", {})
    node.config.stash[LEFT_OUT] = output.get("left_out", 0)


@pytest.hookimpl(trylast=True)
def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    """Print what was skipped, grouped by reason."""
    folders: dict[str, Counter[str]] = {}
    for report in terminalreporter.getreports("skipped"):
        reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else str(report.longrepr)
        file = os.path.relpath(report.nodeid.partition("::")[0], "tests")
        folders.setdefault(reason.removeprefix("Skipped: "), Counter())[file] += 1
    if folders:
        rows = [(sum(found.values()), reason, ", ".join(sorted(found))) for reason, found in sorted(folders.items())]
        terminalreporter.section("skipped, and why")
        terminalreporter.line(tabulate(rows, headers=["tests", "reason", "files"], maxcolwidths=[None, 60, 60]))
    number = config.stash.get(LEFT_OUT, 0)
    if number:
        terminalreporter.line(f"{number} long tests were not run; `make test-all` runs them.")
