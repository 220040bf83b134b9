"""The locked packages: an index with a single wheel of a package would give a lock for one platform only."""

import re
from collections import defaultdict
from pathlib import Path

ENTRY = re.compile(r"^([a-z0-9-]+)(?:\[\S+\])?==(\S+).*\n((?: +--hash=\S+(?: \\)?\n)+)", re.MULTILINE)
ONE_FILE = {"antlr4-python3-runtime", "tritonclient"}  # all that their release has


def test_each_package_has_all_files_of_its_release() -> None:
    files: dict[tuple[str, str], dict[str, frozenset[str]]] = defaultdict(dict)
    for lock in Path().glob("requirements*.txt"):
        for name, version, hashes in ENTRY.findall(lock.read_text(encoding="utf-8")):
            files[name, version][lock.name] = frozenset(re.findall("sha256:[0-9a-f]{64}", hashes))
    assert len(files) > 250
    assert {package: locks for package, locks in files.items() if len(set(locks.values())) > 1} == {}
    assert {name for (name, _), locks in files.items() if min(map(len, locks.values())) < 2} == ONE_FILE
