"""Restoring: what is refused, and why nothing half restored or half written is ever taken for whole."""

import fcntl
import json
import shutil
from pathlib import Path

import pytest

from drycc import safekeeping
from drycc.backends.logstore.base import Line
from drycc.backends.logstore.ring import LocalLogStore
from drycc.backup import manifest
from drycc.backup.create import create_backup
from drycc.core.secrets import Keyring
from drycc.errors import Conflict, Invalid, NotFound, Unavailable
from drycc.kit.ids import now
from drycc.settings import load
from tests.backup.install import Install, check_named, lose, open_install, read_lines, read_tables


async def test_any_byte_that_changed_is_found_before_anything_is_written(install: Install) -> None:
    shown, made = await create_backup(install.platform, str(install.home / "kept"))
    lose(install)
    kept = Path(shown)
    assert {str(file.relative_to(kept)) for file in list_files(kept)} == {manifest.FILE, *made.parts}
    for file in list_files(kept):
        whole = file.read_bytes()
        for position in {0, len(whole) // 2, len(whole) - 1}:
            file.write_bytes(whole[:position] + bytes([whole[position] ^ 1]) + whole[position + 1 :])
            with pytest.raises((Invalid, Conflict)):
                await install.restore(kept)
        file.write_bytes(whole[:-1])
        with pytest.raises(Invalid):
            await install.restore(kept)
        file.unlink()
        with pytest.raises(NotFound):
            await install.restore(kept)
        file.write_bytes(whole)
    assert list(install.data.iterdir()) == []
    await install.restore(kept)
    await check_named(install)


@pytest.mark.parametrize("there", ["drycc.db", "notes", "images/shop/7/tree", "logs"])
async def test_a_directory_in_which_anything_is_stays_as_it_is(install: Install, there: str) -> None:
    shown, _ = await create_backup(install.platform, str(install.home / "kept"))
    lose(install)
    (install.data / there).parent.mkdir(parents=True)
    (install.data / there).write_text("precious")
    with pytest.raises(Conflict, match="goes over nothing: move it aside, or name an empty directory"):
        await safekeeping.restore(install.settings, shown)
    assert list_files(install.data) == [install.data / there]
    assert (install.data / there).read_text() == "precious"


async def test_a_link_to_nothing_is_something_too(install: Install) -> None:
    shown, _ = await create_backup(install.platform, str(install.home / "kept"))
    lose(install)
    install.data.mkdir()
    (install.data / "loop").symlink_to("loop")
    with pytest.raises(Conflict, match="loop is there already"):
        await safekeeping.restore(install.settings, shown)
    assert (install.data / "loop").is_symlink()


async def test_rows_elsewhere_are_not_gone_over_either(tmp_path: Path) -> None:
    rows = tmp_path / "rows" / "drycc.db"
    rows.parent.mkdir()
    async with open_install(tmp_path, {"DRYCC_DATABASE_URL": f"sqlite+aiosqlite:///{rows}"}) as install:
        await install.add_app("shop")
        shown, _ = await create_backup(install.platform, str(tmp_path / "kept"))
        lose(install)
        with pytest.raises(Conflict, match=f"{rows} is there already"):
            await safekeeping.restore(install.settings, shown)
        aside = rows.parent.rename(tmp_path / "aside")
        await safekeeping.restore(install.settings, shown)
        assert read_tables(rows) == read_tables(aside / rows.name)


async def test_a_running_platforms_directory_is_refused_with_its_pid(install: Install) -> None:
    shown, _ = await create_backup(install.platform, str(install.home / "kept"))
    lose(install)
    install.data.mkdir()
    with (install.data / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        with pytest.raises(Conflict, match="belongs to a running dryccd"):
            await safekeeping.restore(install.settings, shown)


async def test_the_keyring_must_be_in_place_and_hold_the_keys(install: Install) -> None:
    shown, made = await create_backup(install.platform, str(install.home / "kept"))
    lose(install)
    keyring = Path(install.settings.keyring)
    assert made.keys == install.keyring.ids
    assert keyring.read_bytes() not in b"".join(file.read_bytes() for file in list_files(Path(shown)))
    aside = keyring.rename(install.home / "elsewhere")
    with pytest.raises(Conflict, match=r"is missing; the backup holds no keys: put your copy of"):
        await install.restore(shown)
    Keyring.create(keyring)
    with pytest.raises(Conflict, match=f"lacks {made.keys[0]}"):
        await install.restore(shown)
    assert list(install.data.iterdir()) == []
    aside.replace(keyring)
    await install.restore(shown)


async def test_a_backup_of_a_newer_program_is_refused(install: Install) -> None:
    shown, _ = await create_backup(install.platform, str(install.home / "kept"))
    lose(install)
    file = Path(shown) / manifest.FILE
    content = json.loads(file.read_bytes())
    newer = manifest.parse(file.read_bytes())
    newer = type(newer)(**{**{name: getattr(newer, name) for name in newer.__slots__}, "revision": "9999"})
    file.write_bytes(manifest.dump(newer))
    with pytest.raises(Conflict, match="install the newer dryccd"):
        await install.restore(shown)
    file.write_text(json.dumps(content | {"format": 2}))
    with pytest.raises(Conflict, match="format 2: install the newer dryccd"):
        await install.restore(shown)


@pytest.mark.parametrize("content", ["[" * 200_000, '{"a":' * 200_000, "[]", "{}", "1", '"a"', "\x00"])
def test_a_manifest_that_is_none_ends_in_a_sentence(content: str) -> None:
    with pytest.raises(Invalid, match="the backup's manifest is damaged"):
        manifest.parse(content.encode())


async def test_a_name_that_no_file_can_have_ends_in_a_sentence(install: Install) -> None:
    lose(install)
    with pytest.raises(Invalid, match="cannot be read: File name too long"):
        await install.restore("x" * 300)
    loop = install.home / "loop"
    loop.symlink_to(loop)
    with pytest.raises(NotFound, match="is missing: this is no whole backup"):
        await install.restore(loop)
    with pytest.raises(Unavailable, match="the backup cannot be written"):
        await create_backup(install.platform, str(loop))
    with pytest.raises(NotFound, match="there is no backup x"):
        await install.restore(f"objects:{'x' * 300}")


async def test_virtual_environments_go_to_their_own_path_alone(tmp_path: Path) -> None:
    """Without one any directory will do."""
    async with open_install(tmp_path / "old") as old, open_install(tmp_path / "new") as new:
        await old.add_app("shop")
        await old.add_release("shop")
        lose(new)
        shutil.copy(old.settings.keyring, new.settings.keyring)
        plain, _ = await create_backup(old.platform, str(tmp_path / "kept"))
        await old.add_release("shop", venv="abc")
        tied, _ = await create_backup(old.platform, str(tmp_path / "kept"))
        with pytest.raises(Conflict, match=f"work at {old.data} alone: restore with --data {old.data}"):
            await new.restore(tied)
        await new.restore(plain)
        await check_named(new)


@pytest.mark.parametrize(
    ("target", "name"),
    [
        ("kept", "backup.snapshot"),
        ("kept", "backup.copied"),
        ("kept", "backup.named"),
        ("kept", "backup.finished"),
        ("objects:", "backup.snapshot"),
        ("objects:", "backup.copied"),
        ("objects:", "backup.finished"),
    ],
)
async def test_a_backup_that_died_is_none_and_the_next_one_clears_up(
    install: Install, target: str, name: str
) -> None:
    where = target if target == "objects:" else str(install.home / target)
    done = await install.dryccd("backup", where, crash=name)
    assert done.code == 137, done
    is_whole = name == "backup.finished"
    assert len(find_backups(install)) == is_whole
    assert list(install.home.rglob(".part-*")) != []
    shown, _ = await create_backup(install.platform, where)
    found = find_backups(install)
    assert len(found) == is_whole + 1
    assert list(install.home.rglob(".part-*")) == []
    stored = {key.split("/")[1] for key in await install.objects.list("backups/")}
    assert stored == {path.name for path in found if target == "objects:"}
    lost = lose(install)
    (newest,) = (path for path in found if path.name == shown.removeprefix("objects:").rpartition("/")[2])
    await install.restore(lost / newest.relative_to(install.data) if target == "objects:" else newest)
    await check_named(install)


@pytest.mark.parametrize("name", ["restore.begun", "restore.unpacked"])
async def test_a_restore_that_died_is_never_served_and_can_be_repeated(install: Install, name: str) -> None:
    shown, _ = await create_backup(install.platform, str(install.home / "kept"))
    await install.db.close()
    expected = read_tables(install.rows)
    lose(install)
    assert (await install.dryccd("restore", shown, crash=name)).code == 137
    served = await install.dryccd("serve")
    assert served.code == 1
    assert "was interrupted: repeat it with `dryccd restore`" in served.err
    await install.restore(shown)
    assert read_tables(install.rows) == expected
    await check_named(install)
    assert not (install.data / "restoring").exists()


async def test_a_repeated_restore_goes_over_nothing_that_is_not_its_own(install: Install) -> None:
    shown, _ = await create_backup(install.platform, str(install.home / "kept"))
    await install.db.close()
    expected = read_tables(install.rows)
    lost = lose(install)
    assert (await install.dryccd("restore", shown, crash="restore.unpacked")).code == 137
    before = list_files(install.data)

    other = install.home / "other.db"
    shutil.copy(lost / "drycc.db", other)
    elsewhere = load(install.environment | {"DRYCC_DATABASE_URL": f"sqlite+aiosqlite:///{other}"})
    with pytest.raises(Conflict, match=f"was writing the rows to {install.rows}, not to {other}"):
        await safekeeping.restore(elsewhere, shown)
    assert read_tables(other) == expected

    for name in ("precious.txt", "keys/ours", "drycc.db-wal"):
        path = install.data / name
        path.parent.mkdir(exist_ok=True)
        path.write_text("precious")
        with pytest.raises(Conflict, match="is there already"):
            await safekeeping.restore(install.settings, shown)
        assert path.read_text() == "precious"
        path.unlink()
    (install.data / "keys").rmdir()

    whole = install.rows.read_bytes()
    install.rows.write_bytes(whole + b"precious")
    with pytest.raises(Conflict, match=f"{install.rows} is there already"):
        await safekeeping.restore(install.settings, shown)
    install.rows.write_bytes(whole)
    assert list_files(install.data) == before
    await safekeeping.restore(install.settings, shown)
    assert read_tables(install.rows) == expected


async def test_what_a_restore_had_half_made_is_made_anew(install: Install) -> None:
    shown, _ = await create_backup(install.platform, str(install.home / "kept"))
    lose(install)
    assert (await install.dryccd("restore", shown, crash="restore.begun")).code == 137
    (install.data / "drycc.db.restoring").write_text("half")
    (install.data / "images" / "shop").mkdir(parents=True)
    (install.data / "images" / "shop" / "half").write_text("half")
    await safekeeping.restore(install.settings, shown)
    await check_named(install)
    assert not (install.data / "images" / "shop" / "half").exists()
    assert list(install.data.glob("*restoring")) == []


async def test_rows_that_came_in_after_a_restore_died_are_not_gone_over(install: Install) -> None:
    shown, _ = await create_backup(install.platform, str(install.home / "kept"))
    await install.db.close()
    lost = lose(install)
    assert (await install.dryccd("restore", shown, crash="restore.begun")).code == 137
    shutil.copy(lost / "drycc.db", install.rows)
    with pytest.raises(Conflict, match=f"{install.rows} is there already"):
        await safekeeping.restore(install.settings, shown)
    assert install.rows.read_bytes() == (lost / "drycc.db").read_bytes()


@pytest.mark.parametrize("content", ["", "[]", '{"format": 2}', '{"entries": 1}'])
async def test_where_a_mark_says_nothing_nothing_is_ours(install: Install, content: str) -> None:
    shown, _ = await create_backup(install.platform, str(install.home / "kept"))
    lose(install)
    install.data.mkdir()
    (install.data / "restoring").write_text(content)
    (install.data / "images").mkdir()
    with pytest.raises(Conflict, match="images is there already"):
        await safekeeping.restore(install.settings, shown)
    (install.data / "images").rmdir()
    await safekeeping.restore(install.settings, shown)
    await check_named(install)


@pytest.mark.parametrize("crash", ["", "restore.begun", "restore.unpacked", "file.written"])
async def test_a_fresh_disk_with_a_keyring_on_it_is_empty(tmp_path: Path, crash: str) -> None:
    """So it is for `serve`; a restore removes neither, repeated or not."""
    data = tmp_path / "data"
    async with open_install(tmp_path, {"DRYCC_KEYRING": f"{data}/keys/ring"}) as install:
        await install.add_app("shop")
        await install.add_release("shop")
        shown, _ = await create_backup(install.platform, str(tmp_path / "kept"))
        lost = lose(install)
        (data / "lost+found").mkdir(parents=True)
        (data / "lost+found" / "#7").write_text("found")
        shutil.copytree(lost / "keys", data / "keys")
        if crash:
            assert (await install.dryccd("restore", shown, crash=crash)).code == 137
        await safekeeping.restore(install.settings, shown)
        await check_named(install)
        assert (data / "lost+found" / "#7").read_text() == "found"
        assert (data / "keys" / "ring").read_bytes() == (lost / "keys" / "ring").read_bytes()


async def test_a_keyring_where_a_restore_would_write_is_refused(tmp_path: Path) -> None:
    environment = {"DRYCC_KEYRING": f"{tmp_path}/data/repos/ring"}
    async with open_install(tmp_path, environment) as install:
        await install.add_app("shop")
        await install.add_release("shop")
        shown, _ = await create_backup(install.platform, str(tmp_path / "kept"))
        lost = lose(install)
        (install.data / "repos").mkdir(parents=True)
        shutil.copy(lost / "repos" / "ring", install.data / "repos" / "ring")
        with pytest.raises(Conflict, match="repos is there already"):
            await safekeeping.restore(install.settings, shown)


async def test_a_repeated_restore_does_not_remove_its_own_source(install: Install) -> None:
    shown, _ = await create_backup(install.platform, str(install.home / "kept"))
    lose(install)
    assert (await install.dryccd("restore", shown, crash="restore.begun")).code == 137
    inside = install.data / "images" / "copy"
    shutil.copytree(shown, inside)
    with pytest.raises(Conflict, match="move it elsewhere first"):
        await safekeeping.restore(install.settings, str(inside))
    assert (inside / manifest.FILE).exists()


async def test_cursors_of_after_the_backup_miss_no_line(install: Install) -> None:
    """Numbers of lines come again after a restore: an old cursor may not stand among the new ones."""
    shown, _ = await create_backup(install.platform, str(install.home / "kept"))
    async with install.logs() as store:
        await append(store, "lost 1", "lost 2", "lost 3")
        cursor = (await store.read("shop", limit=100)).cursor
    lose(install)
    await install.restore(shown)
    async with install.logs() as store:
        await append(store, "new 1", "new 2", "new 3", "new 4")
        lines = [line.text for line in (await store.read("shop", cursor=cursor)).lines]
        assert lines == await read_lines(store, "shop")
        assert lines[-4:] == ["new 1", "new 2", "new 3", "new 4"]


async def test_what_it_says_names_the_size_the_keys_and_what_is_next(
    install: Install, capsys: pytest.CaptureFixture[str]
) -> None:
    await safekeeping.backup(install.settings, "objects:")
    assert "The object store is a part of the data directory, and would be lost" in capsys.readouterr().out
    await safekeeping.backup(install.settings, str(install.home / "kept"))
    said = capsys.readouterr().out
    assert "MiB, rows, 2 images, 1 venvs, 1 repos, 0 objects, 1 logs" in said
    assert f"keep a copy of {install.settings.keyring} elsewhere" in said
    lose(install)
    with pytest.raises(NotFound, match="there is no backup at all in the object store"):
        await safekeeping.restore(install.settings, "objects:")
    (kept,) = (install.home / "kept").iterdir()
    await safekeeping.restore(install.settings, str(kept))
    said = capsys.readouterr().out
    assert f"Restored {kept}" in said
    assert said.endswith("Next: dryccd serve\n")


async def test_a_missing_interpreter_is_told(install: Install, capsys: pytest.CaptureFixture[str]) -> None:
    venv = install.data / "venvs" / "shop" / "0123456789abcdef"
    (venv / "bin").chmod(0o755)
    (venv / "bin" / "python").unlink()
    (venv / "bin" / "python").symlink_to("/opt/python/bin/python3")
    shown, _ = await create_backup(install.platform, str(install.home / "kept"))
    lose(install)
    await safekeeping.restore(install.settings, shown)
    assert f"{venv} needs an interpreter that is not here" in capsys.readouterr().out


async def test_there_is_nothing_to_back_up_before_the_first_start(tmp_path: Path) -> None:
    install = Install(tmp_path, {})
    done = await install.dryccd("backup", tmp_path / "kept")
    assert "there is nothing to back up" in done.err
    assert list(tmp_path.iterdir()) == []


def list_files(root: Path) -> list[Path]:
    return sorted(path for path in root.rglob("*") if path.is_file())


def find_backups(install: Install) -> list[Path]:
    found = (file.parent for file in sorted(install.home.rglob(manifest.FILE)))
    return [path for path in found if not path.name.startswith(".part-")]


async def append(store: LocalLogStore, *texts: str) -> None:
    await store.append("shop", [Line(now(), "app", text) for text in texts])
