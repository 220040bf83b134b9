"""The dependencies in dvc.yaml: what a stage imports, all of it and nothing else."""

from __future__ import annotations

import ast
from pathlib import Path
from typing import Any

import grimp
import pytest
import yaml

from tests.conftest import ROOT

STAGES: dict[str, dict[str, Any]] = yaml.safe_load((ROOT / "dvc.yaml").read_text())["stages"]
WITHOUT_EFFECT = {
    "app.environment": "refuses variables before a command runs",
    "app.errors": "errors end a stage without outputs",
    "app.registry": "access to MLflow, from which no output is read",
    "app.settings": "settings of the service; a stage reads MLflow's default address",
    "stages.on_ray.cluster": "runs tasks on Ray, whose results are those of the engine local",
    "stages.base.errors": "errors end a stage without outputs",
    "stages.base.git": "the commit, for MLflow",
    "stages.params": "checks params.yaml, whose values DVC compares",
    "stages.base.progress": "output to the terminal",
    "stages.base.yaml_files": "reads params.yaml and dvc.lock",
    "stages.tracking.mlflow_runs": "logs to MLflow",
    "stages.tracking.logged_model": "logs the model to MLflow",
    "app.model.request_model": "runs where MLflow loads the logged model",
}
"""Modules that are not dependencies, and why a change of them cannot change an output."""


def imported(graph: grimp.ImportGraph, stage: str) -> set[str]:
    """Return the files of a stage's module and of all that it imports, directly or not, outside WITHOUT_EFFECT.

    An import of a module runs the packages around it first.
    """
    modules = {f"stages.{stage}"} | graph.find_upstream_modules(f"stages.{stage}")
    paths = {Path(name.replace(".", "/")) for name in modules}
    paths |= {package for path in paths for package in path.parents[:-1]}
    files = {p / "__init__.py" if (ROOT / p).is_dir() else p.with_suffix(".py") for p in paths}
    return {str(file) for file in files if file.name != "__init__.py" or has_code(file)}


def has_code(file: Path) -> bool:
    """Return whether a file has more than a docstring."""
    return len(ast.parse((ROOT / file).read_text(encoding="utf-8")).body) > 1


@pytest.fixture(scope="module", name="graph")
def import_graph() -> grimp.ImportGraph:
    """The imports of the first-party packages, without what has no effect."""
    graph = grimp.build_graph("app", "stages", cache_dir=None)
    reached = set().union(*(graph.find_upstream_modules(f"stages.{stage}") for stage in STAGES))
    for name in WITHOUT_EFFECT:
        modules = {name} | graph.find_descendants(name)
        assert modules & reached, f"no stage imports {name} any more"
        for module in modules:
            graph.remove_module(module)
    return graph


def differences(graph: grimp.ImportGraph, stage: str, dependencies: list[str]) -> tuple[set[str], set[str]]:
    """Return the imported files that are not dependencies of a stage, and the dependencies that it does not import."""
    files = imported(graph, stage)
    code = {name for name in dependencies if Path(name).parts[0] in ("app", "stages")}
    covered = {name: {file for file in files if Path(file).is_relative_to(name)} for name in code}
    return files - set().union(*covered.values()), {name for name, found in covered.items() if not found}


@pytest.mark.parametrize("stage", STAGES)
def test_stage_depends_on_exactly_what_it_imports(graph: grimp.ImportGraph, stage: str) -> None:
    dependencies = STAGES[stage]["deps"]
    assert differences(graph, stage, dependencies) == (set(), set())
    own = f"stages/{stage}.py"
    assert differences(graph, stage, [name for name in dependencies if name != own]) == ({own}, set())
    assert differences(graph, stage, [*dependencies, "app/journal"]) == (set(), {"app/journal"})
