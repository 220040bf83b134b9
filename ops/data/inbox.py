"""The inbox: a local folder or a prefix of an object store with files of new rows."""

from pathlib import Path
from typing import Any

import aiohttp
import fsspec
from botocore.exceptions import BotoCoreError

from app.addresses import without_password
from ops.data import add
from ops.data.incoming import table_of
from stages.base.errors import DataInvalid
from stages.base.paths import sha256


def collect_files(url: str) -> tuple[list[Path], list[str]]:
    """Copy the files of an inbox that no addition contains to this machine.

    Returns them by name, and the names of files that are not of a table.
    """
    folder = add.WORK / "inbox"
    folder.mkdir()
    known = {digest for report in add.reports().values() for digest in report["files"].values()}
    try:
        system, root = fsspec.core.url_to_fs(url)
        if "file" in system.protocol and not system.isdir(root):  # in an object store, an empty folder does not exist
            raise NotADirectoryError(root)
        names = {path.rpartition("/")[2]: path for path in _files(system, root)}
        left_out = sorted(name for name in names if not _is_table(name))
        for name in names.keys() - set(left_out):
            system.get_file(names[name], str(folder / name))
    except (OSError, ValueError, ImportError, BotoCoreError, aiohttp.ClientError) as err:
        reason = without_password(str(err) or repr(err))
        raise DataInvalid(
            f"the inbox {without_password(url)} cannot be read: {reason}. Correct --inbox, or the access to it."
        ) from err
    return [path for path in sorted(folder.iterdir()) if sha256(path) not in known], left_out


def _files(system: Any, root: str) -> list[str]:
    """Return the files in a folder; `find` would return none where listing fails."""
    try:
        found = system.ls(root, detail=True)
    except FileNotFoundError:
        if "s3" not in system.protocol:
            raise
        system.ls(root.partition("/")[0], detail=True)  # only the bucket has to exist
        return []
    return [item["name"] for item in found if item["type"] == "file"]


def _is_table(name: str) -> bool:
    try:
        return bool(table_of(Path(name)))
    except DataInvalid:
        return False
