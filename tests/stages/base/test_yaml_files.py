"""JSON and YAML that git tracks: conflict markers, damage and absence are named with file and line."""

from __future__ import annotations

from pathlib import Path

import pytest

from stages.base import yaml_files
from stages.base.errors import FileInvalid
from tests.support.repositories import scratch

FILES = {"metrics.json": '{\n "a": 1\n}\n', "dvc.lock": "stages:\n  a: 1\n"}


@pytest.mark.parametrize(("name", "style"), [("metrics.json", "merge"), ("dvc.lock", "diff3")])
def test_marker_of_a_merge_is_named_with_its_line(
    name: str, style: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    path = Path(name)
    path.write_text(FILES[name], encoding="utf-8")
    scratch.make_repository(tmp_path)
    for branch, value in (("theirs", "2"), ("ours", "3")):
        scratch.git(tmp_path, "checkout", "--quiet", "-b", branch, "main")
        path.write_text(FILES[name].replace("1", value), encoding="utf-8")
        scratch.commit(tmp_path, branch)
    with pytest.raises(Exception, match="merge"):
        scratch.git(tmp_path, "-c", f"merge.conflictStyle={style}", "merge", "theirs")
    line = path.read_text(encoding="utf-8").splitlines().index("<<<<<<< HEAD") + 1
    with pytest.raises(FileInvalid, match=rf"^{name}:{line}: conflict marker '<<<<<<< HEAD'.*--theirs {name}") as found:
        yaml_files.load(path)
    assert str(found.value).count("\n") == 0
    scratch.git(tmp_path, *str(found.value).split("`git ")[1].split("`")[0].split())
    assert yaml_files.load(path) == yaml_files.parse(FILES[name].replace("1", "2"), path)


@pytest.mark.parametrize(
    ("name", "content"), [("a.json", b"{"), ("a.yaml", b"a: [\nb"), ("a.json", b"\xff\xfe{\0"), ("none.json", None)]
)
def test_damaged_or_missing_file_can_be_restored(name: str, content: bytes | None, tmp_path: Path) -> None:
    if content is not None:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(FileInvalid, match=f"{name} cannot be read: .*`git checkout .*{name}` restores it") as error:
        yaml_files.load(tmp_path / name)
    assert "\n" not in str(error.value)
