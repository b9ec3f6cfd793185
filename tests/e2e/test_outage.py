"""The whole platform while its database is away: requests wait or get 503, a push ends with the truth."""

import pytest

from tests.conftest import QUICK
from tests.outage import locked, push_through, stopped
from tests.platform import Platform
from tests.postgres import run_server

# Leases lapse while the database is away, so jobs are lost and taken up again.
SHORT = QUICK | {"DRYCC_LEASE": "3"}


@pytest.mark.e2e
async def test_gp11_a_push_runs_through_a_locked_sqlite() -> None:
    async with Platform(None, SHORT) as platform:
        lock = locked(platform.data / "drycc.db")
        await push_through(platform, lock, seconds=8, reads_go_on=True)


async def test_gp11_a_push_runs_through_a_restart_of_postgresql() -> None:
    with run_server() as server:
        settings = SHORT | {"DRYCC_DATABASE_URL": server.url}
        async with Platform(server.url, settings) as platform:
            await push_through(platform, stopped(server), seconds=8, reads_go_on=False)
