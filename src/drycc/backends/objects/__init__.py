"""Where blobs are kept."""

import asyncio
from pathlib import Path
from urllib.parse import unquote

from drycc.backends.objects.base import ObjectStore


async def open_objects(url: str) -> ObjectStore:
    """The adapter for `file:///…`, percent-encoded."""
    from drycc.backends.objects.filesystem import FileStore

    store = FileStore(find_directory(url))
    await asyncio.to_thread(store.sweep)
    return store


def find_directory(url: str) -> Path:
    """Where a store of files keeps them."""
    return Path(unquote(url.removeprefix("file://")))
