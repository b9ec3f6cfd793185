"""Backups into the ObjectStore on a timer, of which the newest are kept."""

import asyncio
import logging
from datetime import datetime, timedelta

from drycc.backup import archive
from drycc.backup.create import Platform, create_backup
from drycc.errors import DryccError
from drycc.kit.ids import now

log = logging.getLogger("drycc.backup")

LOOK_AGAIN = 60.0  # seconds: the clock may be set meanwhile
TRY_AGAIN = 300.0  # seconds after one that failed


async def run_timer(platform: Platform) -> None:
    """Make one whenever the newest is `backup_every` seconds old; never ends. One that fails is logged and
    tried again: the platform goes on."""
    every = timedelta(seconds=platform.settings.backup_every)
    if platform.is_on_one_disk:
        log.warning("backups are kept in the data directory, and would be lost with its disk")
    while True:
        try:
            await _wait_until(await _newest(platform) + every)
            shown, made = await create_backup(platform, archive.STORE)
            log.info("backup %s, %d bytes", shown, made.size)
            await remove_old(platform)
        except (DryccError, OSError) as error:
            log.error("no backup was made: %s", error)
            await asyncio.sleep(TRY_AGAIN)


async def remove_old(platform: Platform) -> None:
    """Remove all backups in the ObjectStore but the newest `backup_keep`."""
    stored = await archive.list_stored(platform.objects)
    for name in stored[: -platform.settings.backup_keep]:
        await archive.remove_stored(platform.objects, name)


async def _newest(platform: Platform) -> datetime:
    """When the newest was made; long ago when there is none."""
    times = [archive.read_time(name) for name in await archive.list_stored(platform.objects)]
    return max((at for at in times if at is not None), default=datetime.min.replace(tzinfo=now().tzinfo))


async def _wait_until(due: datetime) -> None:
    while (left := (due - now()).total_seconds()) > 0:  # noqa: ASYNC110
        await asyncio.sleep(min(left, LOOK_AGAIN))
