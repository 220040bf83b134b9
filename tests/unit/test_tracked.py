"""JSON and YAML that git tracks: conflict markers, damage and absence are named with file and line."""

from __future__ import annotations

from pathlib import Path

import pytest

from stages import tracked
from stages.errors import FileInvalid
from tests.support import scratch

FILES = {
    "metrics.json": '{\n "a": 1\n}\n',
    "dvc.lock": "stages:\n  a: 1\n",
    "params.yaml": "a: 1\n",
    "data.dvc": "outs: 1\n",
}


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("style", ["merge", "diff3"])
def test_the_marker_of_a_real_merge_is_named_with_its_line(
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
        tracked.load(path)
    assert str(found.value).count("\n") == 0
    scratch.git(tmp_path, *str(found.value).split("`git ")[1].split("`")[0].split())
    assert tracked.load(path) == tracked.parse(FILES[name].replace("1", "2"), path)


@pytest.mark.parametrize(("name", "content"), [("a.json", b"{"), ("a.yaml", b"a: [\nb"), ("a.json", b"\xff\xfe{\0")])
def test_a_damaged_file_is_named_with_the_command_that_restores_it(name: str, content: bytes, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(FileInvalid, match=f"{name} cannot be read: .*`git checkout .*{name}` restores it") as found:
        tracked.load(tmp_path / name)
    assert "\n" not in str(found.value)


def test_a_missing_file_and_the_marker_in_a_commit_have_their_own_way_out(tmp_path: Path) -> None:
    with pytest.raises(FileInvalid, match="No such file.*git checkout"):
        tracked.load(tmp_path / "none.json")
    with pytest.raises(FileInvalid, match="abc:a.json:2: conflict marker '>>>>>>> x'.*make gate BASE="):
        tracked.parse("{}\n>>>>>>> x\n", Path("a.json"), "abc")
