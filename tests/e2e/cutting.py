"""A reader of a build's log whose socket is cut again and again, at random places of what it is sent."""

import asyncio
import json
import random
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

from tests.e2e.developer import Developer

STEP = 300  # lines of a page at most


@dataclass
class CuttingReader:
    """Reads build `id` of `app` to its end; `cuts` answers are cut before their end."""

    ann: Developer
    app: str
    id: int
    cuts: int
    texts: list[str] = field(default_factory=list)
    cursor: str = ""
    done: int = 0  # cuts
    failed: int = 0  # requests that found no platform

    async def run(self) -> None:
        choose = random.Random(7)
        is_over = False
        while not is_over:
            limit = choose.randrange(1, STEP)
            page = await self._ask(limit, choose if self.done < self.cuts else None)
            if page is not None:
                self.texts += [line["text"] for line in page["results"]]
                self.cursor, is_over = page["cursor"], page["is_over"]

    async def _ask(self, limit: int, choose: random.Random | None) -> dict[str, Any] | None:
        """One request on a socket of its own; None when it was cut, or nobody was there."""
        port = self.ann.platform.http_port
        path = f"/v2/apps/{self.app}/builds/{self.id}/log?limit={limit}&wait=2&cursor={self.cursor}"
        try:
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
        except OSError:
            self.failed += 1
            await asyncio.sleep(0.02)
            return None
        head = f"GET {path} HTTP/1.1\r\nHost: localhost\r\nAuthorization: token {self.ann.token}\r\n"
        try:
            writer.write(f"{head}Connection: close\r\n\r\n".encode())
            return await self._read(reader, choose)
        except (OSError, asyncio.IncompleteReadError):
            self.failed += 1
            return None
        finally:
            writer.transport.abort()
            with suppress(OSError):
                await writer.wait_closed()

    async def _read(
        self, reader: asyncio.StreamReader, choose: random.Random | None
    ) -> dict[str, Any] | None:
        head = await reader.readuntil(b"\r\n\r\n")
        status = int(head.split()[1])
        size = next(
            int(line.split(b":")[1])
            for line in head.split(b"\r\n")
            if line.lower().startswith(b"content-length")
        )
        if choose and choose.random() < 0.7:
            await reader.readexactly(choose.randrange(size + 1))
            self.done += 1
            return None
        body = await reader.readexactly(size)
        if status != 200:
            assert status == 503, (status, body)
            self.failed += 1
            return None
        page: dict[str, Any] = json.loads(body)
        return page
