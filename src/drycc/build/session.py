"""What one SSH command does: `ping`, a push or a clone, and a sentence for everything else."""

import asyncio
import logging
import re
import shlex
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass, field

import sqlalchemy as sa
from asyncssh import SSHServerProcess

from drycc.build import push, repository
from drycc.build.git import GitEnded, receive_pack, upload_pack
from drycc.build.push import Ports, Target
from drycc.build.terminal import describe
from drycc.core import apps, keys, policy
from drycc.core.models import App, Build, Release
from drycc.core.policy import Action
from drycc.errors import DryccError, Forbidden, NoSpace, NotFound
from drycc.kit.aio import cancel, within

log = logging.getLogger("drycc.build")

MOST_SESSIONS = 200  # of all connections together
LAST_WORDS = 30.0  # seconds for output to reach a client at the end
DRAIN = 60.0  # seconds until the pushes that are being received have a build
APP = re.compile(r"/?([a-z]([a-z0-9-]*[a-z0-9])?)(\.git)?")


class Refused(DryccError):
    """A command that is refused before git starts; its text reaches the user."""

    code = "refused"


@dataclass(frozen=True, slots=True)
class Command:
    """A git command: the permission that it needs, and what it does; gives the exit status."""

    permission: Action
    run: Callable[["Session", Target], Awaitable[int]]


@dataclass(slots=True)
class Session:
    """One channel of a connection, from its command to its exit status."""

    process: SSHServerProcess[bytes]
    ports: Ports
    announced: asyncio.Event = field(default_factory=asyncio.Event)

    async def run(self) -> None:
        """Do the command; always ends with an exit status while the client is there."""
        try:
            status = await self._run(self.process.command)
        except ConnectionError as error:
            log.info("a client went away: %s", error)
            await self._end(1)
        except Exception as error:  # noqa: BLE001 - logged, and the user gets its number
            await self._end(1, f" !     {describe(error)}\n")
        else:
            await self._end(status)

    async def _end(self, status: int, text: str = "") -> None:
        with suppress(ConnectionError, TimeoutError):
            self.process.stderr.write(text.encode())
            async with asyncio.timeout(LAST_WORDS):
                await self.process.stdout.drain()  # without it the end of git's answer is lost
                await self.process.stderr.drain()
        with suppress(ConnectionError):
            self.process.exit(status)

    async def _run(self, command: str | None) -> int:
        if command == "ping":
            self.process.stdout.write(b"pong")
            return 0
        try:
            name, app = parse_command(command)
        except Refused as refusal:
            self.process.stderr.write(f" !     {refusal}\n".encode())
            return 1
        try:
            target = await self._find_target(app, COMMANDS[name].permission)
        except DryccError as refusal:
            return self._refuse(refusal)
        return await COMMANDS[name].run(self, target)

    def _refuse(self, refusal: DryccError) -> int:
        """What git shows as `fatal: remote error`, before it has heard anything else."""
        self.process.stdout.write(packet(f"ERR {refusal}\n"))
        return 1

    async def _find_target(self, id: str, permission: Action) -> Target:
        """Who asks is looked up again: a connection may be older than the last change of a right."""
        db = self.ports.db
        user = await keys.find_owner(db, self.process.get_extra_info("fingerprint"))
        if user is None:
            raise Refused("this key is no longer accepted; add it again with: drycc keys add")
        try:
            app = await apps.find(db, id)
            policy.require(user, app, permission)
        except NotFound:
            raise Refused(f"there is no app {id}; make it with: drycc apps create {id}") from None
        except Forbidden:
            raise Refused(f"you ({user.username}) may not {permission} the app {id}; ask its owner") from None
        path = await asyncio.to_thread(self.ports.repositories.open, app.uuid)
        return Target(app, user, path, self.announced)

    async def receive(self, target: Target) -> int:
        ports = self.ports
        try:
            path = await asyncio.to_thread(ports.repositories.open_push, target.app.uuid)
        except NoSpace as refusal:
            return self._refuse(refusal)
        try:
            async with receive_pack(self.process, path, ports.hooks) as received:
                await push.receive(received, target, ports)
        except GitEnded as end:
            return end.status
        return received.status

    async def send(self, target: Target) -> int:
        row = await self.ports.db.read_one(_published, app=target.app.uuid)
        await asyncio.to_thread(repository.publish, target.repository, row.sha if row else None)
        return await upload_pack(self.process, target.repository)


COMMANDS = {
    "git-receive-pack": Command("change", Session.receive),
    "git-upload-pack": Command("view", Session.send),
}


class Sessions:
    """All sessions of this process; a client that goes away ends its own, `drain` ends them all."""

    def __init__(self, ports: Ports) -> None:
        self.ports = ports
        self._running: dict[asyncio.Task[None], Session] = {}

    async def handle(self, process: SSHServerProcess[bytes]) -> None:
        """Run the session until it has ended or its channel is gone, which asyncssh tells nobody."""
        if len(self._running) >= MOST_SESSIONS or self.ports.closing.is_set():
            process.stderr.write(b" !     the platform is busy; try again in a minute\n")
            process.exit(1)
            return
        session = Session(process, self.ports)
        task = asyncio.create_task(session.run())
        self._running[task] = session
        gone = asyncio.create_task(process.wait_closed())
        try:
            await asyncio.wait({task, gone}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            await cancel(task)
            await within(LAST_WORDS, gone)
            del self._running[task]

    async def drain(self) -> None:
        """Take no more, wait until each push has printed its build's id, then end what is left."""
        self.ports.closing.set()
        waits = [asyncio.create_task(_announced(task, session)) for task, session in self._running.items()]
        if waits:
            await within(DRAIN, asyncio.wait(waits))
        for wait in waits:
            await cancel(wait)
        await asyncio.gather(*(cancel(task) for task in list(self._running)))


async def _announced(task: "asyncio.Task[None]", session: Session) -> None:
    announced = asyncio.create_task(session.announced.wait())
    try:
        await asyncio.wait({task, announced}, return_when=asyncio.FIRST_COMPLETED)
    finally:
        await cancel(announced)


def parse_command(command: str | None) -> tuple[str, str]:
    """The git command and the app of an SSH command; raises `Refused`."""
    try:
        words = shlex.split(command or "")
    except ValueError:
        words = []
    if words[:1] == ["git"]:
        words[:2] = ["-".join(words[:2])]
    if not words or words[0] not in COMMANDS:
        raise Refused("this server knows git push, git clone and ping, and has no shell")
    name = APP.fullmatch(words[1]) if len(words) == 2 else None
    if name is None:
        raise Refused("expected the name of an app, as in ssh://git@<builder>:2222/<app>.git")
    return words[0], name[1]


def packet(text: str) -> bytes:
    """One line of git's protocol: its length in four hex digits, then the text."""
    data = text.encode()
    return b"%04x%s" % (len(data) + 4, data)


# The newest release that has not failed and came from a push; with autorollback off, failed ones count.
_published = (
    sa.select(Build.sha)
    .select_from(Release)
    .join(App, App.uuid == Release.app_uuid)
    .join(Build, Build.id == Release.build_id)
    .where(
        App.uuid == sa.bindparam("app"), Build.sha != "", sa.or_(~Release.failed, sa.not_(App.autorollback))
    )
    .order_by(Release.version.desc())
    .limit(1)
)
