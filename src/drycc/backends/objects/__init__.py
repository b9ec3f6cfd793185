"""Where blobs are kept."""

from pathlib import Path

from drycc.backends.objects.base import ObjectStore


async def open_objects(url: str) -> ObjectStore:
    """The adapter for `file:///…`."""
    from drycc.backends.objects.filesystem import FileStore

    return FileStore(Path(url.removeprefix("file://")))
