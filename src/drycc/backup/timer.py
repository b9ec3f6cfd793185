"""Backups into the ObjectStore on a timer, of which the newest are kept."""

import asyncio
import logging
import math
from collections.abc import Sequence
from datetime import datetime, timedelta
from time import monotonic

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
    began = -math.inf  # the one that we made last
    while True:
        try:
            await _wait(await _newest(platform), every, began)
            began = monotonic()
            shown, made = await create_backup(platform, archive.STORE)
            log.info("backup %s, %d bytes", shown, made.size)
            await remove_old(platform)
        except (DryccError, OSError) as error:
            log.error("no backup was made: %s", error)
            await asyncio.sleep(TRY_AGAIN)


async def remove_old(platform: Platform) -> None:
    """Remove all backups in the ObjectStore but the newest `backup_keep`; those ahead of us do not count."""
    times = [at for at in await _list_times(platform) if not archive.is_ahead(at)]
    for at in times[: -platform.settings.backup_keep]:
        await archive.remove_stored(platform.objects, archive.make_name(at))


async def _newest(platform: Platform) -> datetime:
    """When the newest was made that counts; long ago when there is none."""
    times = await _list_times(platform)
    if ahead := [archive.make_name(at) for at in times if archive.is_ahead(at)]:
        log.warning(
            "backups of the object store are dated later than now, and do not count: %s; "
            "set the clock, or delete them from the store, below %s",
            ", ".join(ahead),
            archive.PREFIX,
        )
    past = [at for at in times if not archive.is_ahead(at)]
    return max(past, default=datetime.min.replace(tzinfo=now().tzinfo))


async def _list_times(platform: Platform) -> Sequence[datetime]:
    times = [archive.read_time(name) for name in await archive.list_stored(platform.objects)]
    return [at for at in times if at is not None]


async def _wait(newest: datetime, every: timedelta, began: float) -> None:
    """Until the newest is so old, or the clock was set back to before it; and, whatever the clock says, until
    the one that we made last has begun so long ago."""
    while True:
        left = 0.0 if archive.is_ahead(newest) else (newest + every - now()).total_seconds()
        left = max(left, began + every.total_seconds() - monotonic())
        if left <= 0:
            return
        await asyncio.sleep(min(left, LOOK_AGAIN))
