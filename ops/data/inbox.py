"""The inbox: a folder, local or of an object store, in which others leave files of new rows."""

from pathlib import Path

import fsspec
from botocore.exceptions import BotoCoreError

from ops.data import add
from stages.errors import DataInvalid
from stages.files import sha256
from stages.incoming import FORMS


def collect(url: str) -> list[Path]:
    """Copy the files of an inbox that no addition contains to this machine, and return them by name."""
    folder = add.WORK / "inbox"
    folder.mkdir()
    known = {digest for report in add.reports().values() for digest in report["files"].values()}
    try:
        system, root = fsspec.core.url_to_fs(url)
        if "file" in system.protocol and not system.isdir(root):  # in an object store, an empty folder does not exist
            raise NotADirectoryError(root)
        for name in system.find(root, maxdepth=1):
            if name.lower().endswith(FORMS):
                system.get_file(name, str(folder / name.rpartition("/")[2]))
    except (OSError, ValueError, ImportError, BotoCoreError) as err:
        raise DataInvalid(f"the inbox {url} cannot be read: {err}. Correct --inbox, or the access to it.") from err
    return [path for path in sorted(folder.iterdir()) if sha256(path) not in known]
