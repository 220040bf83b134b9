"""`on-time data`: fetch, validate and extend the raw tables."""

# pylint: disable=import-outside-toplevel # a command imports what it runs

from contextlib import suppress
from datetime import datetime
from pathlib import Path

import click

from ops.cli.base import CallerPath, Group, dvc, echo_json, json_option

group = Group()
TIMES = ["%Y-%m-%d", "%Y-%m-%dT%H:%M:%S", "%Y-%m-%dT%H:%M:%S%z"]


@group.verb("on-time data fetch --archive ~/downloads/tables.tar.gz", "data/, only files that are missing")
@click.option("--archive", type=CallerPath(exists=True, dir_okay=False), help="Source package, already downloaded.")
def fetch(archive: Path | None) -> None:
    """Fetch the raw tables, from the DVC remote if one is set, and compare them with their pinned digests."""
    click.echo(_complete(archive))


@group.verb("on-time data check", "data/, only files that are missing; the outputs of the stage `validate`")
@click.pass_context
def check(ctx: click.Context) -> None:
    """Validate the raw tables: columns, keys and rules."""
    ctx.invoke(fetch)
    dvc("repro", "validate")


@group.verb("on-time data test-rows", "data/, only files that are missing; the outputs of the stages up to `featurize`")
@click.pass_context
def test_rows(ctx: click.Context) -> None:
    """Make the rows on which a promotion compares two models."""
    ctx.invoke(fetch)
    dvc("repro", "featurize")


@group.verb(
    "on-time data add ~/inbox/TABLE-2013-07.csv.gz ~/inbox/OTHER-2013-07.parquet",
    "data/, data.dvc and params.yaml; with --push, the DVC remote",
)
@click.argument("files", nargs=-1, type=CallerPath(exists=True, dir_okay=False))
@click.option("--inbox", metavar="URL", help="Folder or s3://… whose files are added, those that are new.")
@click.option("--from-journal", is_flag=True, help="Add the journal's requests with their outcomes, and no files.")
@click.option(
    "--since", type=click.DateTime(TIMES), help="Only outcomes received since this time (UTC if without zone)."
)
@click.option("--push", is_flag=True, help="Store the rows in the DVC remote.")
# pylint: disable-next=too-many-arguments,too-many-positional-arguments # one per option
def add(files: tuple[Path, ...], inbox: str | None, from_journal: bool, since: datetime | None, push: bool) -> None:
    """Add new rows: FILES named TABLE….csv, .csv.gz or .parquet, checked by the rules; all of them or none."""
    from ops.data.add import add_rows, alone, describe_addition, recover

    if (bool(files) or inbox is not None) == from_journal:
        raise click.UsageError("Name files, or an --inbox, or --from-journal.")
    if since and not from_journal:
        raise click.UsageError("--since belongs to --from-journal.")
    with alone():
        for left, place in recover().items():
            click.echo(f"{left}: not in params.yaml, it is in {place} now", err=True)
        _complete()
        changed = False
        found = _journaled(since) if from_journal else [*files, *_collected(inbox)]
        if found:
            changed, report = add_rows(found, corrects=not from_journal)
            click.echo(describe_addition(report))
        dvc("add", "--quiet", "data")  # also after an addition that was interrupted before this step
        if push:
            dvc("push", "data")
    if not changed:
        click.echo("Nothing to add: data/ is as it was.")
    else:
        remote = "" if push else " `dvc push data` stores the rows in the DVC remote: no other clone has them without."
        click.echo(f"Next: `make repro`, and commit params.yaml, data.dvc, dvc.lock and reports.{remote}")


def _collected(url: str | None) -> list[Path]:
    from ops.data import inbox

    if not url:
        return []
    paths, left_out = inbox.collect_files(url)
    for name in left_out:
        click.echo(f"{name}: left out, as it is not named after a table", err=True)
    return paths


def _journaled(since: datetime | None) -> list[Path]:
    from app.settings import Settings
    from ops.data import journal_rows

    return journal_rows.collect_rows(Settings().journal_url, since)


@group.verb("on-time data status", "nothing")
@json_option
def status(as_json: bool) -> None:
    """Show what is in data/: tables, periods, rows, gaps, additions, quarantine."""
    from ops.data.status import collect_status, describe_status

    found = collect_status()
    if as_json:
        echo_json(found)
    else:
        click.echo(describe_status(found))


def _complete(archive: Path | None = None) -> str:
    """Fetch what data/ lacks, verify it, and return a summary."""
    from ops.doctor import doctor
    from stages.tables.fetch import DATA_DIR, ensure, incomplete

    if archive is None and incomplete() and doctor.dvc_remotes():
        with suppress(SystemExit):  # without access to the remote, the source package may do
            dvc("pull", str(DATA_DIR))
    return ensure(archive)
