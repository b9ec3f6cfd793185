"""The house as `docs/architecture.md` draws it: import contracts, and words that do not belong."""

import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parent.parent
SOURCE = ROOT / "src" / "drycc"


def test_the_import_contracts_hold() -> None:
    linter = Path(sys.executable).with_name("lint-imports")
    done = subprocess.run(
        [linter, "--no-cache"], cwd=ROOT, capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stdout


def test_nothing_of_what_is_never_written_is_there() -> None:
    never = re.compile(
        r"shell=True|preexec_fn|import pickle|yaml\.load\(|time\.sleep\(|TODO|FIXME|NotImplementedError"
    )
    found = [
        f"{file.relative_to(ROOT)}:{number}"
        for file in SOURCE.rglob("*.py")
        for number, line in enumerate(file.read_text().splitlines(), 1)
        if never.search(line)
    ]
    assert found == []


def test_a_laptop_loads_no_client_of_a_cluster() -> None:
    """Kubernetes, S3 and AMQP clients, and Alembic, are imported where they are opened, if at all."""
    code = "import sys, drycc.main; print(*sorted(sys.modules))"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True
    )
    loaded = set(done.stdout.split())
    assert not loaded & {"kubernetes_asyncio", "aioboto3", "aio_pika", "alembic", "httpx", "asyncpg"}


def test_no_module_has_a_name_that_says_nothing() -> None:
    names = {file.stem for file in SOURCE.rglob("*.py")}
    assert not names & {"utils", "helpers", "common", "manager", "misc"}
