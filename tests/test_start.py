"""The commands by hand, and the first start: sentences in place of traces, and nobody else may look."""

import asyncio
import os
import stat
import sys
from collections.abc import Mapping
from contextlib import AsyncExitStack
from pathlib import Path
from uuid import uuid4

import pytest

from drycc.backends.db import open_database
from drycc.main import open_keyring
from drycc.settings import Settings
from tests.conftest import MIGRATIONS, new_postgres_database
from tests.ordinary import ORDINARY
from tests.platform import ADMIN, Done, Platform, run

pytestmark = pytest.mark.e2e
USERS = (
    ("user", "list"),
    ("user", "create", "ann", "--password-stdin"),
    ("user", "password", "ann", "--password-stdin"),
    ("keys", "ann"),
)


async def dryccd(home: Path, *argv: str, **settings: str | Path) -> Done:
    ours = {name: value for name, value in os.environ.items() if not name.startswith("DRYCC_")}
    environment = ours | {f"DRYCC_{name}": str(value) for name, value in settings.items()}
    command = (*ORDINARY, sys.executable, "-m", "drycc", *argv)
    return await run(*command, cwd=home, environment=environment, types="hunter22 hunter22\n")


def check_sentence(done: Done, text: str) -> None:
    assert done.code == 1, done
    assert text in done.err, done
    assert [line for line in done.err.splitlines() if line and not line.startswith("dryccd: ")] == [], done
    assert "argon2" not in done.out + done.err


@pytest.mark.parametrize("command", USERS)
async def test_commands_without_a_platform_say_so(tmp_path: Path, command: tuple[str, ...]) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "empty" / "drycc.db").touch()
    for data in (tmp_path / "none", tmp_path / "empty", Path("/etc/passwd")):
        text = f"there is no platform at {data} yet: run `dryccd serve` or `dryccd migrate`"
        check_sentence(await dryccd(tmp_path, *command, DATA=data), text)


async def test_a_file_that_is_no_database_is_named_as_such(tmp_path: Path) -> None:
    tmp_path.chmod(0o700)
    (tmp_path / "drycc.db").write_bytes(b"no database " * 1000)
    for command in (("user", "list"), ("serve",)):
        done = await dryccd(tmp_path, *command, DATA=tmp_path)
        check_sentence(done, "the database cannot be used: file is not a database")


@pytest.mark.parametrize("command", ["serve", "migrate"])
async def test_a_data_directory_that_cannot_be_is_refused(tmp_path: Path, command: str) -> None:
    closed = tmp_path / "closed"
    closed.mkdir(mode=0o500)
    places = {
        Path("/etc/passwd"): "/etc/passwd cannot be the data directory",
        Path("/proc/x"): "/proc/x cannot be the data directory",
        closed: "Permission denied",
        closed / "below": "Permission denied",
        Path("/usr"): "/usr holds bin and no platform",
    }
    for data, text in places.items():
        check_sentence(await dryccd(tmp_path, command, DATA=data), text)
    assert stat.S_IMODE(Path("/usr").stat().st_mode) == 0o755


async def test_stop_closes_nothing_that_is_not_ours(tmp_path: Path) -> None:
    check_sentence(await dryccd(tmp_path, "stop", DATA="/usr"), "/usr holds bin and no platform")
    done = await dryccd(tmp_path, "stop", DATA="/etc/passwd")
    assert (done.code, done.err) == (0, "")


async def test_programs_that_serve_runs_say_so_by_hand(tmp_path: Path) -> None:
    for program in ("build-image", "edge"):
        check_sentence(await dryccd(tmp_path, program), "`dryccd serve` starts this program when it needs it")


async def test_settings_are_refused_and_typos_told(tmp_path: Path) -> None:
    done = await dryccd(tmp_path, "--config", "none.toml", "settings")
    check_sentence(done, "none.toml cannot be read: No such file or directory")
    done = await dryccd(tmp_path, "settings", DEPLOY_TIMOUT="1", CLIENT="x", DATA=tmp_path)
    assert (done.code, done.err) == (
        0,
        "dryccd: there is no setting DRYCC_DEPLOY_TIMOUT, the nearest is DRYCC_DEPLOY_TIMEOUT\n",
    )


async def test_a_database_server_that_refuses_us_is_a_sentence(tmp_path: Path, postgres_url: str) -> None:
    url = postgres_url.rsplit("/", 1)[0] + "/none"
    for command in (("user", "list"), ("migrate",)):
        done = await dryccd(tmp_path, *command, DATA=tmp_path / "data", DATABASE_URL=url)
        check_sentence(done, 'the database cannot be used: database "none" does not exist')


async def test_an_open_directory_with_a_strange_name_is_closed_and_serves(tmp_path: Path) -> None:
    platform = Platform(home=tmp_path)
    platform.data = tmp_path / "data b?c#d%41"
    platform.settings["DRYCC_DATA"] = str(platform.data)
    platform.data.mkdir()
    platform.data.chmod(0o755)
    keyring = Path(f"{platform.data}-keyring")
    async with platform:
        token = await platform.login()
        await platform.add_key(token)
        assert (await platform.api("POST", "/v2/apps/", {"id": "shop"}, token)).status == 201
        pushed = await platform.push("shop", await platform.make_app("shop"))
        assert (pushed.code, (await platform.app_get("shop")).text) == (0, "v1\n")
        assert f"{platform.data} was open to other users; it is ours alone now" in platform.log()
        assert _find_open(platform.data) == []
        assert (keyring.stat().st_mode & 0o777, keyring.stat().st_size > 0) == (0o600, True)
        await platform.kill()
        keyring.chmod(0o644)
        await platform.start()
        assert keyring.stat().st_mode & 0o777 == 0o600
        assert platform.log().count("was open to other users") == 2
        assert sorted(path.name for path in platform.home.iterdir() if path.name.startswith("data")) == [
            platform.data.name,
            keyring.name,
        ]


def _find_open(data: Path) -> list[Path]:
    """What others could read if the data directory did not keep them out; an image's tree is the app's."""
    apps = {"images", "pods", "venvs"}
    outside = [path for top in data.iterdir() if top.name not in apps for path in [top, *top.rglob("*")]]
    return [path for path in outside if not path.is_symlink() and path.lstat().st_mode & 0o077]


async def test_the_first_password_outlives_a_start_that_dies(tmp_path: Path) -> None:
    platform = Platform(environment={"DRYCC_ADMIN_PASSWORD": "", "DRYCC_CRASH": "admin.written"})
    file = platform.data / "admin-password"
    with pytest.raises(AssertionError, match="ended with 137"):
        await platform.start()
    password = file.read_text().strip()
    assert (file.stat().st_mode & 0o777, len(password)) == (0o600, 20)
    del platform.settings["DRYCC_CRASH"]
    async with platform:
        assert f"The superuser is admin, the password is in {file}" in platform.log()
        await platform.login(ADMIN, password)
        await platform.kill()
        await platform.start()
        assert platform.log().count("The superuser is") == 1


async def test_the_second_of_two_first_starts_leaves_no_password(postgres_url: str, tmp_path: Path) -> None:
    url = await new_postgres_database(postgres_url)
    environment: Mapping[str, str] = {"DRYCC_ADMIN_PASSWORD": "", "DRYCC_KEYRING": str(tmp_path / "keyring")}
    platforms = [Platform(url, environment) for _ in range(2)]
    platforms[1].settings["DRYCC_ROLES"] = "api"
    try:
        await asyncio.gather(*(platform.start() for platform in platforms))
        files = [platform.data / "admin-password" for platform in platforms]
        passwords = [file.read_text().strip() for file in files if file.exists()]
        for password in passwords:
            await platforms[0].login(ADMIN, password)
        assert len(passwords) == 1
    finally:
        for platform in platforms:
            await platform.stop()
            await platform._remove()


async def test_two_first_starts_share_one_keyring(tmp_path: Path) -> None:
    chosen = Settings(keyring=str(tmp_path / "keyring"))
    async with open_database(f"sqlite+aiosqlite:///{tmp_path}/drycc.db") as db, AsyncExitStack() as stack:
        await db.migrate(MIGRATIONS)
        opening = (open_keyring(chosen, db, may_create=True) for _ in range(8))
        made = await asyncio.gather(*(stack.enter_async_context(one) for one in opening))
    wrapped = [keyring.new_data_key(uuid4())[:8] for keyring in made]
    assert all(made[0].has(id) for id in wrapped)


async def test_commands_that_only_look_make_nothing(tmp_path: Path) -> None:
    data = tmp_path / "data"
    check_sentence(await dryccd(tmp_path, "builds", "list", "shop", DATA=data), "there is no platform")
    assert not data.exists()
    done = await dryccd(tmp_path, "migrate", DATA=data)
    assert done.code == 0, done
    done = await dryccd(tmp_path, "check", DATA=data)
    assert "nothing is encrypted with it yet" in done.out, done
    check_sentence(await dryccd(tmp_path, "backup", DATA=data), "there is no keyring yet")
    assert not (data / "data-keyring").exists()


async def test_a_reader_who_has_read_enough_is_no_fault(tmp_path: Path) -> None:
    for command in ("settings", "check"):
        line = f"{sys.executable} -m drycc --data {tmp_path}/data {command} | true"
        done = await run("sh", "-c", line, cwd=tmp_path, environment=dict(os.environ))
        assert (done.code, done.err) == (0, "")
