"""The console script `dryccd`: reads the command line, runs one command, and is the only place that exits."""

import argparse
import asyncio
import getpass
import json
import logging
import os
import signal
import sys
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import replace
from pathlib import Path

from drycc import __version__, settings
from drycc.errors import DryccError, Invalid
from drycc.kit.disk import find_trouble
from drycc.settings import Settings

Command = Callable[[argparse.Namespace, Settings], Coroutine[None, None, None]]


def main(argv: Sequence[str] | None = None) -> None:
    """Run `dryccd`; an expected failure is one sentence on stderr and exit code 1."""
    arguments = _parser().parse_args(argv)
    try:
        status = _run(arguments)
        sys.stdout.flush()
        sys.exit(status)
    except DryccError as error:
        sys.exit(f"dryccd: {error}")
    except BrokenPipeError:  # whoever read us has read enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(128 + signal.SIGPIPE)
    except OSError as error:
        trouble = find_trouble(error)
        if trouble is None and not isinstance(error, PermissionError):
            raise
        sys.exit(f"dryccd: {trouble or error.strerror}: {error.filename}")
    except KeyboardInterrupt:
        sys.exit(130)


def _run(arguments: argparse.Namespace) -> int:
    if arguments.command in PROGRAMS:
        return PROGRAMS[arguments.command]()
    os.umask(0o077)  # what we and our children write is ours alone
    config = Path(arguments.config) if arguments.config else None
    environ = dict(os.environ)
    if arguments.data:
        environ["DRYCC_DATA"] = arguments.data
    chosen = settings.load(environ, config)
    _set_up_logging(chosen.log_format)
    for line in settings.find_strange(os.environ):
        print(f"dryccd: {line}", file=sys.stderr)
    if arguments.command == "demo":
        return _demo(arguments, chosen)
    if sys.version_info < (3, 12):  # the default on 3.11 needs a thread for each child
        asyncio.get_event_loop_policy().set_child_watcher(asyncio.PidfdChildWatcher())
    asyncio.run(COMMANDS[arguments.command](arguments, chosen))
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser("dryccd", description="Drycc Workflow in one process.")
    parser.add_argument("--config", metavar="FILE", help="a TOML file with settings")
    parser.add_argument("--data", metavar="DIR", help="the data directory (DRYCC_DATA)")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    serve = commands.add_parser("serve", help="be the platform")
    serve.add_argument("--roles", default="", help="comma separated; none = all")
    _add_data(serve)
    _add_data(commands.add_parser("stop", help="end the platform, its pods and its edge"))
    _add_data(commands.add_parser("migrate", help="bring the database's schema to this version"))
    _add_data(commands.add_parser("check", help="open everything that serve needs and say what was found"))
    backup = commands.add_parser("backup", help="back everything up while the platform serves")
    backup.add_argument("target", nargs="?", default="objects:", help="a directory, or objects: (default)")
    _add_data(backup)
    restore = commands.add_parser("restore", help="restore a backup into an empty data directory")
    restore.add_argument("source", help="a backup's directory, objects:<name>, or objects: for the newest")
    _add_data(restore)
    commands.add_parser("settings", help="name, type, unit, default and meaning of every setting")
    commands.add_parser("setup-names", help="let ssh find the builder of a controller at localhost")
    demo = commands.add_parser("demo", help="deploy a small app end to end and print its URL")
    demo.add_argument("--app", metavar="DIR", default="examples/hello", help="the app's source")
    demo.add_argument("--keep", action="store_true", help="leave the platform running")
    _add_users(commands.add_parser("user", help="create and list users, set passwords"))
    keys = commands.add_parser("keys", help="list the SSH keys of a user")
    keys.add_argument("username")
    _add_builds(commands.add_parser("builds", help="list, follow and cancel builds"))
    commands.add_parser("edge", help="the edge process; started by serve")
    commands.add_parser("build-image", help="the image builder; started by serve")
    commands.add_parser("version", help="print the version")
    return parser


def _add_data(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--data", metavar="DIR", default=argparse.SUPPRESS, help="the data directory")


def _add_users(parser: argparse.ArgumentParser) -> None:
    actions = parser.add_subparsers(dest="action", required=True, metavar="ACTION")
    create = actions.add_parser("create", help="add a user")
    create.add_argument("username")
    create.add_argument("--superuser", action="store_true")
    create.add_argument("--if-absent", action="store_true", help="leave an existing user as it is")
    create.add_argument("--password-stdin", action="store_true", help="read the password from stdin")
    actions.add_parser("list", help="print all users")
    password = actions.add_parser("password", help="set a user's password")
    password.add_argument("username")
    password.add_argument("--password-stdin", action="store_true", help="read the password from stdin")


def _add_builds(parser: argparse.ArgumentParser) -> None:
    actions = parser.add_subparsers(dest="action", required=True, metavar="ACTION")
    listing = actions.add_parser("list", help="print the newest builds of an app")
    listing.add_argument("app")
    follow = actions.add_parser("follow", help="print a build's log until it is over")
    follow.add_argument("id", type=int)
    cancel = actions.add_parser("cancel", help="end a build that is queued or building")
    cancel.add_argument("id", type=int)


async def _serve(arguments: argparse.Namespace, chosen: Settings) -> None:
    from drycc import main

    await main.serve(replace(chosen, roles=arguments.roles or chosen.roles))


async def _stop(arguments: argparse.Namespace, chosen: Settings) -> None:
    from drycc import main

    await main.stop(chosen)


async def _migrate(arguments: argparse.Namespace, chosen: Settings) -> None:
    from drycc import main

    await main.migrate(chosen)


async def _check(arguments: argparse.Namespace, chosen: Settings) -> None:
    from drycc.check import check

    await check(chosen)


async def _backup(arguments: argparse.Namespace, chosen: Settings) -> None:
    from drycc.safekeeping import backup

    await backup(chosen, arguments.target)


async def _restore(arguments: argparse.Namespace, chosen: Settings) -> None:
    from drycc.safekeeping import restore

    await restore(chosen, arguments.source)


def _demo(arguments: argparse.Namespace, chosen: Settings) -> int:
    """In the main thread and without a loop, so that Ctrl-C ends the step that it meets."""
    from drycc.demo import run_demo

    run_demo(chosen, Path(arguments.app), keep=arguments.keep)
    return 0


async def _print_settings(arguments: argparse.Namespace, chosen: Settings) -> None:
    for name, kind, unit, default, meaning, value in settings.rows(chosen):
        print(f"{name}\t{kind}\t{unit}\t{default or '-'}\t{meaning}\t{value or '-'}")


async def _set_up_names(arguments: argparse.Namespace, chosen: Settings) -> None:
    from drycc.names import set_up_names

    await set_up_names()


async def _user(arguments: argparse.Namespace, chosen: Settings) -> None:
    from drycc.core import identity
    from drycc.data import open_existing

    async with open_existing(chosen) as db:
        if arguments.action == "list":
            for user in await identity.list_users(db):
                marks = [
                    mark for mark, on in (("superuser", user.is_superuser), ("staff", user.is_staff)) if on
                ]
                print(user.username, *marks)
        elif arguments.action == "create":
            await identity.create_user(
                db,
                arguments.username,
                _read_password(arguments),
                is_superuser=arguments.superuser,
                if_absent=arguments.if_absent,
            )
        else:
            await identity.set_password(db, arguments.username, _read_password(arguments))


async def _keys(arguments: argparse.Namespace, chosen: Settings) -> None:
    from drycc.core import keys
    from drycc.data import open_existing

    async with open_existing(chosen) as db:
        for key in await keys.list_of_user(db, arguments.username):
            print(key.id, key.sha256, key.fingerprint)


async def _builds(arguments: argparse.Namespace, chosen: Settings) -> None:
    from drycc.builds_cli import run_builds

    await run_builds(arguments, chosen)


def _read_password(arguments: argparse.Namespace) -> str:
    if arguments.password_stdin:
        password = sys.stdin.readline().rstrip("\r\n")
    elif sys.stdin.isatty():
        password = getpass.getpass(f"Password for {arguments.username}: ")
    else:
        raise Invalid("give the password on stdin, with --password-stdin")
    if not password:
        raise Invalid("the password is empty")
    return password


def _check_starter(variable: str) -> None:
    if variable not in os.environ:
        raise Invalid("`dryccd serve` starts this program when it needs it; there is no other use of it")


def _edge() -> int:
    _check_starter("DRYCC_EDGE_FD")
    from drycc.backends.cluster.local.edge.server import main

    return main(os.environ)


def _build_image() -> int:
    _check_starter("DRYCC_SOURCE")
    from drycc.build.image import main

    return main(os.environ)


def _version() -> int:
    print(__version__)
    return 0


def _set_up_logging(form: str) -> None:
    handler = logging.StreamHandler()
    handler.setFormatter(_JsonLines() if form == "json" else logging.Formatter(TEXT_LINES))
    logging.basicConfig(level=logging.INFO, handlers=[handler])
    for noisy in ("asyncssh", "alembic", "uvicorn"):
        logging.getLogger(noisy).setLevel(logging.WARNING)


TEXT_LINES = "%(asctime)s %(levelname)s %(name)s %(message)s"


class _JsonLines(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        line = {"at": self.formatTime(record), "level": record.levelname, "name": record.name}
        line["text"] = record.getMessage()
        if record.exc_info:
            line["trace"] = self.formatException(record.exc_info)
        return json.dumps(line)


COMMANDS: dict[str, Command] = {
    "serve": _serve,
    "stop": _stop,
    "migrate": _migrate,
    "check": _check,
    "backup": _backup,
    "restore": _restore,
    "settings": _print_settings,
    "setup-names": _set_up_names,
    "user": _user,
    "keys": _keys,
    "builds": _builds,
}
PROGRAMS: dict[str, Callable[[], int]] = {
    "edge": _edge,
    "build-image": _build_image,
    "version": _version,
}
