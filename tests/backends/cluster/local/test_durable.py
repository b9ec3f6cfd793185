"""Files that are whole, trees that are gone."""

import os
from pathlib import Path

from drycc.backends.cluster.local.durable import read_json, remove_leftovers, remove_tree, write_json


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
    (tmp_path / "kept").mkdir()
    remove_leftovers(tmp_path)
    assert os.listdir(tmp_path) == ["kept"]
