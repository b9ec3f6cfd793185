"""The first start's superuser."""

import asyncio
import sys
from pathlib import Path

from drycc.backends.db import Database
from drycc.core import identity
from drycc.kit.crash import point
from drycc.kit.files import write_whole
from drycc.settings import Settings


async def create_admin(settings: Settings, db: Database) -> None:
    """Add `admin` where there is no user. A generated password is kept in a file before it is in use."""
    if await identity.list_users(db):
        return
    if settings.admin_password:
        await identity.create_user(db, "admin", settings.admin_password, is_superuser=True, if_absent=True)
        return
    file = Path(settings.data) / "admin-password"
    password = await asyncio.to_thread(_keep_password, file)
    point("admin.written")
    if not await identity.create_user(db, "admin", password, is_superuser=True, if_absent=True):
        file.unlink()  # another process with the same database was first
        return
    shown = f"{password}, kept in {file}" if sys.stdout.isatty() else f"is in {file}"
    print(f"The superuser is admin, the password {shown}", flush=True)


def _keep_password(file: Path) -> str:
    """The one in the file, when a start died before it was used, else a new one."""
    if file.exists() and (kept := file.read_text().strip()):
        return kept
    password = identity.make_password()
    write_whole(file, f"{password}\n".encode())
    return password
