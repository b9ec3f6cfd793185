"""Files that are whole, trees that are gone."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from drycc.errors import NoSpace
from drycc.kit.files import (
    close_to_others,
    create_whole,
    delete_tree,
    read_json,
    remove_leftovers,
    remove_tree,
    write_json,
)
from tests.ordinary import ORDINARY
from tests.smalldisk import small_disk


def test_json_is_replaced_whole_and_private(tmp_path: Path) -> None:
    path = tmp_path / "spec.json"
    assert read_json(path) is None
    for value in ({"a": 1}, {"a": 2}):
        write_json(path, value)
        assert read_json(path) == value
    assert path.stat().st_mode & 0o777 == 0o600
    assert os.listdir(tmp_path) == ["spec.json"]
    for text in ("{", "[1]", "", "\xff"):
        path.write_text(text)
        assert read_json(path) is None
    assert read_json(path / "below") is None


def test_a_full_disk_keeps_the_former_file_and_nothing_else(tmp_path: Path) -> None:
    with small_disk(tmp_path / "disk", 1) as disk:
        path, new = disk.seen / "snapshot.json", disk.seen / "keyring"
        write_json(path, {"a": 1})
        for leave in (0, 4096):
            disk.fill(leave)
            with pytest.raises(NoSpace, match="no space is left"):
                write_json(path, {"a": "x" * 8192})
            with pytest.raises(NoSpace):
                create_whole(new, b"x" * 8192)
            assert sorted(os.listdir(disk.seen)) == ["ballast", "snapshot.json"]
            assert read_json(path) == {"a": 1}
        disk.free()
        write_json(path, {"a": "x" * 8192})
        create_whole(new, b"x" * 8192)
        assert sorted(os.listdir(disk.seen)) == ["keyring", "snapshot.json"]


def test_read_only_and_closed_trees_are_removed(tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir(mode=0o500)
    tree = tmp_path / "tree"
    for name in ("a/b", "a/closed/d"):
        (tree / name).mkdir(parents=True)
        (tree / name / "file").write_text("x")
    (tree / "a/link").symlink_to(outside)
    for name in ("a/closed/d", "a/closed", "a/b", "a", "."):
        (tree / name).chmod(0o000 if name == "a/closed" else 0o555)
    remove_tree(tree)
    remove_tree(tree)
    assert os.listdir(tmp_path) == ["outside"]
    assert outside.stat().st_mode & 0o777 == 0o500


def test_what_was_set_aside_before_we_died_goes_later(tmp_path: Path) -> None:
    (tmp_path / ".removed-1" / "inside").mkdir(parents=True)
    (tmp_path / ".part-1").touch()
    (tmp_path / "kept").mkdir()
    remove_leftovers(tmp_path)
    assert os.listdir(tmp_path) == ["kept"]


def test_somebody_without_roots_rights_removes_what_a_build_has_sealed(tmp_path: Path) -> None:
    for number, call in enumerate((delete_tree, remove_tree)):
        tree = tmp_path / str(number)
        (tree / "a/b").mkdir(parents=True)
        (tree / "a/b/file").write_text("x")
        for name in ("a/b/file", "a/b", "a"):
            (tree / name).chmod(0o500)
        argv = [*ORDINARY, sys.executable, "-c"]
        plain = subprocess.run([*argv, f"import shutil; shutil.rmtree({str(tree)!r})"], capture_output=True)
        assert b"PermissionError" in plain.stderr
        script = f'from pathlib import Path; from drycc.kit.files import *; {call.__name__}(Path("{tree}"))'
        subprocess.run([*argv, script], check=True)
    assert os.listdir(tmp_path) == []
    delete_tree(tmp_path / "absent")


def test_a_file_is_created_whole_and_never_over_another(tmp_path: Path) -> None:
    path = tmp_path / "keyring"
    create_whole(path, b"one")
    with pytest.raises(FileExistsError):
        create_whole(path, b"two")
    assert (path.read_bytes(), path.stat().st_mode & 0o777) == (b"one", 0o600)
    assert os.listdir(tmp_path) == ["keyring"]


def test_others_lose_their_rights(tmp_path: Path) -> None:
    tmp_path.chmod(0o755)
    assert [close_to_others(tmp_path), close_to_others(tmp_path)] == [True, False]
    assert tmp_path.stat().st_mode & 0o777 == 0o700
