"""20,000 steps of the property test on each database."""

import asyncio
import logging
from pathlib import Path
from random import randrange
from tempfile import TemporaryDirectory
from time import monotonic

from hypothesis import HealthCheck, seed, settings
from hypothesis.stateful import run_state_machine_as_test

from tests.conftest import new_postgres_database
from tests.core.property_bench import bench
from tests.postgres import postgres

STEPS = 20_000
SOME = settings(
    max_examples=50,
    stateful_step_count=50,
    deadline=None,
    database=None,
    suppress_health_check=list(HealthCheck),
)


async def drill_property() -> None:
    with TemporaryDirectory() as directory, postgres() as server:
        for name, url in (
            ("sqlite", f"sqlite+aiosqlite:///{directory}/drycc.db"),
            ("postgresql", await new_postgres_database(server)),
        ):
            shared = Path(directory) / name
            shared.mkdir()
            await asyncio.to_thread(_take_steps, name, url, shared)


def _take_steps(name: str, url: str, directory: Path) -> None:
    """Each fifty examples from a seed that is printed, so that they can be had again."""
    logging.getLogger("drycc").setLevel(logging.ERROR)  # the faults are meant
    began = monotonic()
    with bench(url, directory) as platform:
        while platform.steps < STEPS:
            number = randrange(2**32)
            print(f"{name}: {platform.steps} steps in {monotonic() - began:.0f} s, seed {number}", flush=True)
            run_state_machine_as_test(seed(number)(platform), settings=SOME)
        print(f"{name}: {platform.steps} steps in {monotonic() - began:.0f} s, 0 differences", flush=True)
