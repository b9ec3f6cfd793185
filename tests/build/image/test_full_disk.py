"""A build that finds no space, in its tree or in its virtual environment: one sentence, nothing left."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.build.image.test_image import Site, run
from tests.smalldisk import Disk, small_disk

KIB = 1024


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Disk]:
    with small_disk(tmp_path / "disk", 8) as disk:
        yield disk


@pytest.fixture
def site(disk: Disk) -> Site:
    site = Site(disk.seen)
    site.wheel("big", "1", "def main(): pass\n" + f"TEXT = {'x' * 2048 * KIB!r}\n")
    site.source({"web.py": "import big\n", "requirements.txt": "big==1\n", "data": "x" * 200 * KIB})
    return site


# No place for the directory, in the tree, in `venv` of Python's own, in what pip unpacks.
@pytest.mark.parametrize("leave", [0, 100 * KIB, 260 * KIB, 1500 * KIB])
def test_a_build_without_space_says_so_and_leaves_nothing(site: Site, disk: Disk, leave: int) -> None:
    disk.fill(leave)
    left = disk.left()
    status, said = run(site)
    assert status == 1
    assert "no space" in said.lower(), said
    assert "Traceback" not in said
    assert disk.left() >= left - 4 * KIB  # but for directories' own
    kept = [path for path in disk.seen.rglob("*") if path.is_file() and path.suffix not in (".whl", ".tar")]
    assert kept == [disk.seen / "ballast"]
    disk.free()
    status, said = run(site)
    assert status == 0, said
