"""`on-time bench`: measure the service and the pipeline."""

# pylint: disable=import-outside-toplevel # a command imports what it runs

from pathlib import Path

import click

from ops.cli import data
from ops.cli.base import COUNT, CallerPath, Group, Several

group = Group()


@group.verb(
    "on-time bench serving --seconds 2 --connections 16 --rows 1000 --without-mlflow", "build/bench/serving.json"
)
@click.option("--seconds", type=COUNT, default=5, help="Duration of each measurement.")
@click.option("--rounds", type=COUNT, default=3, help="Number of measurements; the median is reported.")
@click.option("--connections", type=COUNT, multiple=True, default=(1, 16, 64, 256), help="May be repeated.")
@click.option("--rows", type=COUNT, multiple=True, default=(1, 100, 10_000), help="Rows of a batch; may be repeated.")
@click.option("--without-mlflow", is_flag=True, help="Omit `mlflow models serve`, and starts from the registry.")
def serving(
    seconds: int, rounds: int, connections: tuple[int, ...], rows: tuple[int, ...], without_mlflow: bool
) -> None:
    """Measure requests beside an empty FastAPI endpoint, batches, starts and memory of the service (10 minutes)."""
    from ops.studies.speed.serving import measure_service

    measure_service(seconds, rounds, connections, rows, without_mlflow)


@group.verb("on-time bench request", "nothing")
@click.option("--rounds", type=COUNT, default=3, help="Number of measurements; the median is reported.")
def request(rounds: int) -> None:
    """Measure the parts of one prediction, in microseconds of one core."""
    from ops.studies.speed.request import measure_request

    click.echo(measure_request(rounds))


@group.verb("on-time bench scoring --files 1 --files 3", "build/bench/scoring.json")
@click.option("--files", type=COUNT, multiple=True, default=(1, 3, 10, 30), help="May be repeated.")
@click.option("--rounds", type=COUNT, default=1, help="Number of measurements; the median is reported.")
def scoring(files: tuple[int, ...], rounds: int) -> None:
    """Measure `on-time model score` beside `Booster.predict`, and its memory; 332,418 rows a file (20 minutes)."""
    from ops.studies.speed.scoring import measure_scoring

    measure_scoring(files, rounds)


@group.verb(
    "on-time bench scale --factors 1,3 --modes memory --keep ~/years",
    "build/bench/scale.json; with --keep, that folder",
)
@click.option("--factors", type=Several(COUNT), default="1,3,10,30", help="Numbers of years.")
@click.option("--modes", type=Several(click.STRING), show_default="all", help="Settings of the pipeline.")
@click.option("--keep", type=CallerPath(file_okay=False), help="Folder for the generated years, used again if there.")
@click.pass_context
def scale(ctx: click.Context, factors: tuple[int, ...], modes: tuple[str, ...] | None, keep: Path | None) -> None:
    """Measure time and memory of each stage on the pinned year and on several of them, in each mode (hours)."""
    from ops.studies.scale.scale import MODES, measure_scale

    unknown = [mode for mode in modes or () if mode not in MODES]
    if unknown:
        raise click.UsageError(f"Unknown mode {', '.join(unknown)}; known are {', '.join(MODES)}.")
    ctx.invoke(data.fetch)
    measure_scale(factors, modes or tuple(MODES), keep)
