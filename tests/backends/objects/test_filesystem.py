"""The ObjectStore port on files."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from drycc.backends.objects import open_objects
from drycc.backends.objects.base import ObjectStore
from drycc.errors import Invalid, NoSpace, NotFound
from tests.smalldisk import small_disk
from tests.waiting import until


@pytest.fixture
async def objects(tmp_path: Path) -> ObjectStore:
    return await open_objects(f"file://{tmp_path}/objects")


async def chunks(*parts: bytes) -> AsyncIterator[bytes]:
    for part in parts:
        yield part


async def breaking() -> AsyncIterator[bytes]:
    yield b"half"
    raise OSError("the sender is gone")


async def test_an_object_is_stored_read_replaced_and_deleted(objects: ObjectStore) -> None:
    assert await objects.put("sources/app/1.tar", chunks(b"one", b"two")) == 6
    assert (await objects.path("sources/app/1.tar")).read_bytes() == b"onetwo"
    await objects.put("sources/app/1.tar", chunks(b"three"))
    assert (await objects.path("sources/app/1.tar")).read_bytes() == b"three"
    assert await objects.list("sources/app/") == ["sources/app/1.tar"]
    await objects.delete("sources/app/1.tar")
    await objects.delete("sources/app/1.tar")
    with pytest.raises(NotFound):
        await objects.path("sources/app/1.tar")


async def test_a_full_disk_leaves_the_old_object_and_no_part(tmp_path: Path) -> None:
    with small_disk(tmp_path / "disk", 1) as disk:
        objects = await open_objects(f"file://{disk.seen}/objects")
        await objects.put("sources/app/1.tar", chunks(b"one"))
        for leave in (0, 64 * 4096):
            disk.fill(leave)
            with pytest.raises(NoSpace, match="no space is left"):
                await objects.put("sources/app/1.tar", chunks(*[bytes(100_000)] * 5))
            assert disk.left() >= leave
        assert (await objects.path("sources/app/1.tar")).read_bytes() == b"one"
        disk.free()
        assert await objects.put("sources/app/1.tar", chunks(*[bytes(100_000)] * 5)) == 500_000
        assert [file.name for file in disk.seen.rglob("*") if file.is_file()] == ["1.tar"]


async def test_parts_of_the_dead_go_and_those_of_the_living_stay(
    objects: ObjectStore, tmp_path: Path
) -> None:
    may_end = asyncio.Event()

    async def slowly() -> AsyncIterator[bytes]:
        yield b"first"
        await may_end.wait()
        yield b"last"

    dead = tmp_path / "objects" / ".part-dead"
    async with asyncio.TaskGroup() as group:
        putting = group.create_task(objects.put("a", slowly()))
        await until(lambda: list((tmp_path / "objects").glob(".part-*")))
        dead.touch()
        await open_objects(f"file://{tmp_path}/objects")
        assert not dead.exists()
        may_end.set()
    assert putting.result() == 9


async def test_a_broken_upload_leaves_the_old_object_and_no_part(
    objects: ObjectStore, tmp_path: Path
) -> None:
    await objects.put("a", chunks(b"whole"))
    with pytest.raises(OSError, match="gone"):
        await objects.put("a", breaking())
    assert (await objects.path("a")).read_bytes() == b"whole"
    assert [file.name for file in (tmp_path / "objects").iterdir()] == ["a"]


@pytest.mark.parametrize("key", ["", "/etc/passwd", "../x", "a/../../x", "a//b", ".", "a/.", ".part-1"])
async def test_keys_that_leave_the_store_are_refused(objects: ObjectStore, key: str) -> None:
    with pytest.raises(Invalid):
        await objects.put(key, chunks(b"x"))


async def test_objects_are_for_us_alone_and_leave_no_empty_directory(
    objects: ObjectStore, tmp_path: Path
) -> None:
    await objects.put("a/b/one", chunks(b"x"))
    await objects.put("a/two", chunks(b"x"))
    root = tmp_path / "objects"
    assert (root / "a/b/one").stat().st_mode & 0o777 == 0o600
    await objects.delete("a/b/one")
    assert [path.name for path in (root / "a").iterdir()] == ["two"]
    await objects.delete("a/two")
    assert list(root.iterdir()) == []


async def test_a_directory_that_is_emptied_takes_no_new_object_with_it(objects: ObjectStore) -> None:
    async def come_and_go(name: str) -> None:
        for _ in range(100):
            await objects.put(f"sources/app/{name}", chunks(b"x"))
            await objects.list("sources/")
            await objects.delete(f"sources/app/{name}")

    await asyncio.gather(*(come_and_go(str(number)) for number in range(4)))
    assert await objects.list("") == []
