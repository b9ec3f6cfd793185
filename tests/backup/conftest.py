"""An install with the app `shop`: one release without and one with a virtual environment, and lines."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.backup.install import Install, open_install, write_lines


@pytest.fixture
async def install(tmp_path: Path) -> AsyncIterator[Install]:
    async with open_install(tmp_path) as opened:
        await opened.add_app("shop")
        await opened.add_release("shop")
        await opened.add_release("shop", venv="0123456789abcdef")
        async with opened.logs() as store:
            await write_lines(store, "shop", 0, 20)
        yield opened
