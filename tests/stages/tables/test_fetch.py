"""make data: it adds what is missing, and never overwrites what is there."""

from __future__ import annotations

import hashlib
import io
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

from stages.base.errors import DataInvalid
from stages.problem_kit.params import DataParams
from stages.tables import fetch

TABLES = {"small.csv": b"a,b\n1,2\n", "zipped.csv": b"c\n3\n"}


def digest(content: bytes) -> str:
    """Return the SHA-256 of bytes."""
    return hashlib.sha256(content).hexdigest()


@pytest.fixture(name="archive")
def source_package(tmp_path: Path) -> Path:
    """Return a source package with one plain and one zipped table."""
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as zipped:
        zipped.writestr("zipped.csv", TABLES["zipped.csv"])
    path = tmp_path / "pkg-1.0.tar.gz"
    with tarfile.open(path, "w:gz") as tar:
        for name, content in (("small.csv", TABLES["small.csv"]), ("zipped.csv.zip", packed.getvalue())):
            member = tarfile.TarInfo(f"pkg-1.0/pkg/data/{name}")
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
    return path


@pytest.fixture(name="p")
def data_params(archive: Path) -> DataParams:
    """Return the digests of that package and of its tables."""
    tables = {name.removesuffix(".csv"): digest(content) for name, content in TABLES.items()}
    return DataParams(package="pkg", version="1.0", sha256=digest(archive.read_bytes()), tables=tables)


@pytest.fixture(name="directory")
def data_directory(tmp_path: Path) -> Path:
    """Return where the tables go; it does not exist yet."""
    return tmp_path / "repo" / "data"


@pytest.fixture(name="filled")
def filled_directory(directory: Path, p: DataParams, archive: Path) -> Path:
    """Return the directory with all tables in it."""
    assert sorted(fetch.fetch(directory, p, archive)) == sorted(TABLES)
    return directory


def test_all_tables_are_unpacked_and_nothing_else(filled: Path, p: DataParams) -> None:
    assert {path.name: path.read_bytes() for path in filled.iterdir()} == TABLES
    assert {path.stat().st_mode & 0o777 for path in filled.iterdir()} == {0o644}
    assert [path.name for path in filled.parent.iterdir()] == ["data"]
    fetch.verify(filled, p)


def test_only_what_is_missing_is_fetched(filled: Path, p: DataParams, archive: Path) -> None:
    kept = (filled / "small.csv").stat().st_mtime_ns
    (filled / "zipped.csv").unlink()
    assert fetch.fetch(filled, p, archive) == ["zipped.csv"]
    assert (filled / "small.csv").stat().st_mtime_ns == kept


def test_complete_data_need_no_archive_or_network(filled: Path, p: DataParams, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(subprocess, "run")
    assert fetch.fetch(filled, p) == []


def test_changed_file_is_named_and_kept(filled: Path, p: DataParams, archive: Path) -> None:
    (filled / "small.csv").write_bytes(b"a,b\n1,3\n")
    (filled / "zipped.csv").unlink()
    with pytest.raises(DataInvalid) as caught:
        fetch.fetch(filled, p, archive)
    message = str(caught.value)
    for part in (
        f"rm {filled / 'small.csv'} && make data",
        "git checkout data.dvc",
        "dvc add data",
        digest(b"a,b\n1,3\n")[:12],
    ):
        assert part in message
    assert p.files["small.csv"][:12] in message
    assert {path.name: path.read_bytes() for path in filled.iterdir()} == {"small.csv": b"a,b\n1,3\n"}


def test_an_extra_file_stops_with_its_name(filled: Path, p: DataParams) -> None:
    (filled / "notes.txt").write_text("mine", encoding="utf-8")
    with pytest.raises(DataInvalid, match=r"notes\.txt is not one of the files"):
        fetch.verify(filled, p)
    assert (filled / "notes.txt").read_text(encoding="utf-8") == "mine"


def test_missing_file_is_named_with_its_command(filled: Path, p: DataParams) -> None:
    (filled / "zipped.csv").unlink()
    with pytest.raises(DataInvalid, match=r"lacks zipped\.csv\. `make data`"):
        fetch.verify(filled, p)


def test_archive_with_another_digest_is_refused(directory: Path, p: DataParams, archive: Path) -> None:
    archive.write_bytes(archive.read_bytes() + b"\0")
    with pytest.raises(DataInvalid, match=r"pkg-1\.0\.tar\.gz is not pkg 1\.0"):
        fetch.fetch(directory, p, archive)
    assert not list(directory.iterdir()) and [path.name for path in directory.parent.iterdir()] == ["data"]


def test_table_with_another_digest_is_refused(directory: Path, p: DataParams, archive: Path) -> None:
    wrong = p.model_copy(update={"tables": p.tables | {"zipped": "0" * 64}})
    with pytest.raises(DataInvalid, match=r"zipped\.csv does not match params"):
        fetch.fetch(directory, wrong, archive)
    assert not list(directory.iterdir())


def test_a_table_that_the_archive_lacks_is_named(directory: Path, p: DataParams, archive: Path) -> None:
    wrong = p.model_copy(update={"tables": p.tables | {"other": "0" * 64}})
    with pytest.raises(DataInvalid, match=r"has 0 files named other\.csv or other\.csv\.zip"):
        fetch.fetch(directory, wrong, archive)


def test_table_in_any_folder_must_be_the_only_one(directory: Path, tmp_path: Path, p: DataParams) -> None:
    path = tmp_path / "other_name-1.0.tar.gz"
    for folders in (["deep/inside"], ["deep/inside", "copy"]):
        with tarfile.open(path, "w:gz") as tar:
            for folder in folders:
                member = tarfile.TarInfo(f"other_name-1.0/{folder}/small.csv")
                member.size = len(TABLES["small.csv"])
                tar.addfile(member, io.BytesIO(TABLES["small.csv"]))
        one = p.model_copy(
            update={"sha256": digest(path.read_bytes()), "tables": {"small": digest(TABLES["small.csv"])}}
        )
        if len(folders) == 1:
            assert fetch.fetch(directory, one, path) == ["small.csv"]
            (directory / "small.csv").unlink()
        else:
            with pytest.raises(DataInvalid, match=r"has 2 files named small\.csv or small\.csv\.zip, expected one"):
                fetch.fetch(directory, one, path)


def test_failed_download_names_the_command(directory: Path, p: DataParams, monkeypatch: pytest.MonkeyPatch) -> None:
    def no_network(command: list[str], **_: object) -> subprocess.CompletedProcess[str]:
        return subprocess.CompletedProcess(command, 1)

    monkeypatch.setattr(subprocess, "run", no_network)
    with pytest.raises(
        DataInvalid, match=r"pip download .* pkg==1\.0` failed with exit code 1.*--archive pkg-1\.0\.tar\.gz"
    ):
        fetch.fetch(directory, p)
    assert not list(directory.iterdir())


def test_data_are_verified_without_loading_pandas() -> None:
    program = "import sys; from stages.tables import fetch; print(fetch.ensure()); assert 'pandas' not in sys.modules"
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert (result.returncode, result.stderr) == (0, "")
    assert "5 files match params.yaml, 0 of them fetched now" in result.stdout
