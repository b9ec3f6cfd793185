"""`pip install .` alone gives a working `dryccd`: the wheel in an empty virtual environment."""

import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from tests.conftest import QUICK
from tests.e2e import apps
from tests.e2e.developer import Developer
from tests.platform import Platform

ROOT = Path(__file__).parent.parent
pytestmark = [pytest.mark.e2e, pytest.mark.timeout(300)]


def pip(python: Path | str, *argv: str | Path) -> None:
    command = [python, "-m", "pip", "--quiet", *argv]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=240, check=False)
    assert done.returncode == 0, done.stderr


@pytest.fixture
def installed(tmp_path: Path) -> Path:
    """The interpreter of a new virtual environment with the wheel in it."""
    pip(sys.executable, "wheel", "--no-deps", "--no-build-isolation", "--wheel-dir", tmp_path, ".")
    (wheel,) = tmp_path.glob("*.whl")
    names = zipfile.ZipFile(wheel).namelist()
    assert "drycc/migrations/versions/0001_first.py" in names
    assert "drycc/backends/cluster/local/leader.sh" in names
    subprocess.run([sys.executable, "-m", "venv", tmp_path / "venv"], check=True, timeout=60)
    python = tmp_path / "venv" / "bin" / "python"
    pip(python, "install", "--require-hashes", "-r", "requirements.lock")
    pip(python, "install", "--no-deps", wheel)
    return python


async def test_the_wheel_migrates_takes_a_push_and_checks(installed: Path) -> None:
    platform = Platform(environment=QUICK, python=str(installed))
    migrated = await platform.dryccd("migrate")
    assert migrated.code == 0, migrated
    before = await platform.dryccd("check")
    assert before.code == 0, before
    assert "schema 0001, up to date" in before.out
    async with platform:
        ann = await Developer.join(platform)
        repository = await ann.create("shop")
        await ann.push("shop", repository, apps.answering("'from a wheel'"))
        assert (await ann.get("shop")).text == "from a wheel"
        during = await platform.dryccd("check")
        assert (during.code, "edge: 127.0.0.1" in during.out) == (0, True), during
