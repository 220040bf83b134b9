"""`on-time model`: train, compare, promote, roll back and serve the model."""

# pylint: disable=import-outside-toplevel # a command imports what it runs

import os
import sys
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime
from importlib import import_module
from pathlib import Path

import click

from ops.cli import base, data

group = base.Group()


@group.verb("on-time model train", "the outputs of the stages up to `evaluate`, dvc.lock, and MLflow's runs")
@click.pass_context
def train(ctx: click.Context) -> None:
    """Train and evaluate the model, without registering it."""
    ctx.invoke(data.fetch)
    base.dvc("repro", "evaluate")


@group.verb(
    "on-time model repro", "the outputs of all stages, dvc.lock, MLflow's runs, a new version and the alias staging"
)
@click.pass_context
def repro(ctx: click.Context) -> None:
    """Train, evaluate and register the model (all of `dvc repro`), and print its metrics."""
    from stages.base import git

    git.commit()  # every stage needs it: fail before the first
    ctx.invoke(data.fetch)
    with ThreadPoolExecutor(1) as background:
        background.submit(import_module, "ops.registry.summary")  # takes 3 s, meanwhile DVC runs
        base.dvc("repro")
    from ops.ci.github import output
    from ops.registry import summary

    version = summary.registered()
    output(version=str(version.version))
    click.echo(summary.describe_version(version))


@group.verb(
    "on-time model promote --version 2",
    "the alias production, the recorded decision, and the service's cache of the model",
)
@base.version_option
@click.option("--allow-equal", is_flag=True, help="Accept a model that is as good as Production.")
@click.option("--if-none", is_flag=True, help="Do nothing when a version is Production.")
@click.option("--without-champion", is_flag=True, help="Judge by the floors alone if Production's artifacts are lost.")
def promote(version: str | None, allow_equal: bool, if_none: bool, without_champion: bool) -> None:
    """Make Staging, or another version, the Production version if the gate accepts it."""
    from ops.registry import commands

    how = allow_equal, if_none, without_champion
    text = commands.patiently(lambda client, p: commands.promote(client, p, version, *how))
    if text:
        click.echo(text)


@group.verb(
    'on-time model rollback --reason "too many false alarms"',
    "the alias production, the recorded decision, and the service's cache of the model",
)
@base.version_option
@click.option("--reason", required=True, metavar="TEXT", help="What is wrong with Production; recorded.")
def rollback(version: str | None, reason: str) -> None:
    """Make the previous version, or another one that was promoted before, the Production version again."""
    from ops.registry import commands

    click.echo(commands.patiently(lambda client, p: commands.rollback(client, p, version, reason)))


@group.verb("on-time model history --json", "nothing")
@base.json_option
def history(as_json: bool) -> None:
    """Show which versions were Production, from when to when, and why; and what was deployed."""
    from app.interface import NAME
    from ops.registry import commands
    from ops.registry.history import collect_history, describe_history

    if as_json:
        base.echo_json(commands.patiently(lambda client, _: collect_history(client, NAME)))
    else:
        click.echo(commands.patiently(lambda client, _: describe_history(client, NAME)))


@group.verb("on-time model compare 1 2", "nothing")
@click.argument("versions", nargs=-1, type=base.VERSION, metavar="[VERSION]...")
@click.option("--last", type=base.COUNT, default=5, help="Number of runs to show when no version is named.")
@base.json_option
def compare(versions: tuple[str, ...], last: int, as_json: bool) -> None:
    """Show the last pipeline runs, or those behind some versions, side by side."""
    from ops.registry import commands
    from ops.registry.history import compare_runs, comparison, pipeline_runs

    runs = commands.patiently(lambda client, _: pipeline_runs(client, list(versions), last))
    if as_json:
        base.echo_json(comparison(runs))
    else:
        click.echo(compare_runs(runs))


@group.verb("on-time model require", "nothing")
def require() -> None:
    """Fail, with what to do, when no version is Production."""
    from ops.registry import commands

    commands.patiently(commands.require)


@group.verb("on-time model export build/export --version 2", "FOLDER, which must be empty or an earlier export")
@click.argument("folder", type=base.CallerPath(file_okay=False))
@base.version_option
def export(folder: Path, version: str | None) -> None:
    """Write Production, or another version, to a folder that the service can load."""
    from ops.registry import commands

    click.echo(commands.patiently(lambda client, p: commands.export(client, p, folder, version)))


@group.verb("on-time model serve --port 8001", "the service's cache of the model; by requests, the journal")
@click.option("--host", envvar="ONTIME_HOST", default="127.0.0.1", help="Address to listen on.")
@click.option("--port", envvar="ONTIME_PORT", type=click.IntRange(0, 65535), default=8000, help="Port to listen on.")
@click.pass_context
def serve(ctx: click.Context, host: str, port: int) -> None:
    """Start the API on the Production version."""
    from app.registry.cache import Cache
    from app.settings import Settings

    os.environ |= {"ONTIME_HOST": host, "ONTIME_PORT": str(port)}
    if not Cache(Settings.read()).pointer():
        ctx.invoke(require)
    os.execv(sys.executable, [sys.executable, "-m", "app"])


@group.verb("on-time model ui --port 5001", "in the browser, MLflow's runs and registry")
@click.option("--port", type=click.IntRange(1, 65535), default=5000, help="Port to listen on.")
def ui(port: int) -> None:
    """Open MLflow's UI on the runs and the registry."""
    from stages.tracking import mlflow_runs

    mlflow_runs.connect()  # the store may have been moved
    command = sys.executable, "-m", "mlflow", "ui", "--port", str(port), "--workers", "1"  # one person uses it
    store = "--backend-store-uri", mlflow_runs.tracking_uri()
    base.become(*command, *store, MLFLOW_SERVER_ENABLE_JOB_EXECUTION="false")  # seven processes more


@group.verb("on-time model gate --base main --json", "nothing")
@base.base_option
@base.json_option
def gate(base_: str, as_json: bool) -> None:
    """Compare the metrics with those of the merge base; exit with 3 when the gate refuses them."""
    from ops.gate import pull_request
    from stages import params

    judged = pull_request.judge_commit(base_, params.load().gate)
    decision = judged.decision
    if as_json:
        checks = [vars(check) for check in decision.checks]
        base.echo_json({"accepted": decision.accepted, "reasons": decision.reasons, "checks": checks})
    else:
        click.echo(judged.comment)
    pull_request.enforce(decision)


@group.verb("on-time model report --base main", "build/report")
@base.base_option
def report(base_: str) -> None:
    """Write what changes against the merge base as Markdown: metrics, parameters, plots, gate."""
    from ops.gate import comparison

    comparison.write_report(base_)


@group.verb("on-time model gate-selftest --pairs 20 --no-controls", "nothing")
@click.option("--pairs", type=click.IntRange(0), default=20, help="Pairs of models that differ by their seed.")
@click.option("--repeats", type=click.IntRange(0), default=60, help="Resamples of the test days to measure power on.")
@click.option("--controls/--no-controls", default=True, help="Try models that must be refused.")
def gate_selftest(pairs: int, repeats: int, controls: bool) -> None:
    """Measure how often the promotion gate is wrong, and what it refuses (an hour or more; 0 omits a part)."""
    from ops.studies.gate import show_gate

    show_gate(pairs, repeats, controls)


@group.verb("on-time model tune --trials 80 --apply", "build/tune.db and MLflow's runs; with --apply, params.yaml")
@click.option("--trials", type=base.COUNT, default=40, help="Number of trials in all, earlier ones included.")
@click.option("--apply", is_flag=True, help="Write better parameters to params.yaml.")
def tune(trials: int, apply: bool) -> None:
    """Search the parameters of training on the training months."""
    from ops.training.tune import search_parameters

    search_parameters(trials, apply)


@group.verb(
    "on-time model retrain --now --until 2013-11-30",
    "MLflow's runs; when it retrains, params.yaml and the same as `model repro`, or a workflow run at GitHub",
)
@click.option("--now", is_flag=True, help="Train on this machine without a decision.")
@click.option("--until", type=base.DAY, help="Last day of the data (default: the newest one in data/).")
@click.pass_context
def retrain(ctx: click.Context, now: bool, until: datetime | None) -> None:
    """Decide from the drift monitor's evidence whether to retrain, and start it."""
    from ops.training import retraining

    if now:
        ctx.invoke(data.fetch)
    retraining.retrain(until.date() if until else None, now)


@group.verb("on-time model year --months 4 --folder build/year", "--folder")
@click.option("--months", type=base.COUNT, default=4, help="Months of the first data.")
@click.option("--files", type=base.CallerPath(exists=True, file_okay=False), help="Folder of TABLE-YYYY-MM files.")
@click.option("--folder", type=base.CallerPath(file_okay=False), default="build/year", help="What is made goes there.")
@click.pass_context
def year(ctx: click.Context, months: int, files: Path | None, folder: Path) -> None:
    """Run the closed loop in fast motion, on the later months of the data and those of --files (minutes a month)."""
    from ops.studies.year import live_year

    ctx.invoke(data.fetch)
    click.echo(live_year(Path.cwd(), Path(folder), months, files))


@group.verb("on-time model score rows/ s3://bucket/predictions --version 3", "OUTPUT, only files that are missing")
@click.argument("source", type=base.Address(), metavar="INPUT")
@click.argument("target", type=base.Address(), metavar="OUTPUT")
@base.version_option
@click.option("--alias", default="production", help="Alias of the version, if no number is given.")
@click.option("--rejected", type=click.FloatRange(0, 1), default=0.01, help="Share of rows that may be invalid.")
@click.option("--workers", type=base.COUNT, metavar="N", help="Processes; by default one for each processor.")
@click.option("--engine", type=click.Choice(["local", "ray"]), default="local", help="What runs the processes.")
def score(
    source: str, target: str, version: str | None, alias: str, rejected: float, workers: int | None, engine: str
) -> None:
    """Predict the rows of a file or a folder: Parquet, CSV or Arrow, local or in S3; repeat it to continue."""
    from ops.scoring import command

    click.echo(command.score_with_version(source, target, version, alias, rejected, workers or 0, engine))
