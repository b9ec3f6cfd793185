"""The README's commands, run; its tour, told again and compared line by line."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import QUICK
from tests.e2e import show
from tests.ordinary import ORDINARY
from tests.platform import Platform
from tests.postgres import free_port

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()
TESTED = {"make demo", "make test", "make show"}
VARYING = [
    (r"sha256:[0-9a-f]{12}", "sha256:…"),
    (r"main at [0-9a-f]{8}", "main at …"),
    (r"shop-web-[0-9a-f]{9}-[a-z0-9]{5}", "shop-web-…"),
    (r"localhost:\d+", "localhost:…"),
]
pytestmark = pytest.mark.e2e


def find_blocks() -> dict[str, str]:
    """Command → the output that the README shows below it."""
    blocks = re.findall(r"```console\n\$ ([^\n]+)\n(.*?)```", README, re.DOTALL)
    return {command: output.rstrip() for command, output in blocks}


def settle(text: str) -> list[str]:
    """The lines of an output, without what differs from run to run."""
    for pattern, stands_for in VARYING:
        text = re.sub(pattern, stands_for, text)
    return [line.rstrip() for line in text.splitlines()]


def test_every_command_of_the_readme_is_run_by_a_test() -> None:
    assert set(find_blocks()) == TESTED
    assert "\nmake test " in (ROOT / ".ci" / "run").read_text()


async def test_the_tour_is_what_the_readme_shows(database_url: str | None) -> None:
    told: list[str] = []
    async with Platform(database_url, QUICK | show.SHORT) as platform:
        await show.tell(platform, told.append)
    assert settle("\n".join(told)) == settle(find_blocks()["make show"])


def test_make_demo_ends_with_a_url_that_answers_and_leaves_nothing(tmp_path: Path) -> None:
    ports = {f"DRYCC_{name}_LISTEN": f"127.0.0.1:{free_port()}" for name in ("HTTP", "SSH", "EDGE")}
    here = f"BIN={Path(sys.executable).parent}"
    done = subprocess.run(
        [*ORDINARY, "make", "--no-print-directory", "demo", "INSTALLED=", here],
        cwd=ROOT,
        env=os.environ | ports | {"TMPDIR": str(tmp_path)},
        capture_output=True,
        text=True,
        timeout=110,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    address = ports["DRYCC_EDGE_LISTEN"].rpartition(":")[2]
    assert re.search(rf"http://\S+\.localhost:{address}/ answers 200: Hello from \S+ v2", done.stdout)
    assert done.stdout.rstrip().endswith("Stopped; nothing was left running.")
    assert list(tmp_path.iterdir()) == []
    assert str(tmp_path) not in _environments()


def test_every_link_of_the_docs_leads_somewhere() -> None:
    for file in [ROOT / "README.md", *(ROOT / "docs").rglob("*.md")]:
        for target in re.findall(r"\]\(([^)#]+)\)", file.read_text()):
            assert target.startswith("http") or (file.parent / target).exists(), f"{file.name}: {target}"


def _environments() -> str:
    found = []
    for environ in Path("/proc").glob("[0-9]*/environ"):
        try:
            found.append(environ.read_bytes().decode(errors="replace"))
        except OSError:
            continue
    return "\n".join(text for text in found if "DRYCC_INSTANCE" in text)
