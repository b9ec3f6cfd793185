"""Readers of an app's numbered lines whose own socket is cut again and again, anywhere in what it is sent."""

import asyncio
import json
import random
import re
from collections.abc import AsyncIterator
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlencode

from websockets.client import ClientProtocol
from websockets.frames import Frame, Opcode
from websockets.http11 import Response
from websockets.uri import parse_uri

from tests.e2e.developer import Developer

EVERYTHING = 2**40  # bytes
LENGTH = re.compile(rb"(?i)content-length: *([0-9]+)")
Page = dict[str, Any]


@dataclass
class Reader:
    """Reads `count` lines of the process type `writer`; what a cut page had counts for nothing."""

    ann: Developer
    app: str
    count: int
    cuts: int
    seed: int
    numbers: list[int] = field(default_factory=list)
    cursor: str = ""
    done: int = 0  # cuts
    failed: int = 0  # connections that found no platform, or that it left
    span: int = 20_000  # bytes: what is sent within so many is where the next cut falls

    def __post_init__(self) -> None:
        self.choose = random.Random(self.seed)
        self.plan = sorted(self.choose.randrange(self.count * 9 // 10) for _ in range(self.cuts))

    async def run(self) -> None:
        while len(self.numbers) < self.count:
            try:
                await self._connect()
            except OSError:
                self.failed += 1
                await asyncio.sleep(0.02)

    async def _connect(self) -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", self.ann.platform.http_port)
        try:
            await self.talk(writer, self._receive(reader))
        finally:
            writer.transport.abort()
            with suppress(OSError):
                await writer.wait_closed()

    async def _receive(self, reader: asyncio.StreamReader) -> AsyncIterator[bytes]:
        """What comes, up to the next cut."""
        got, end = 0, EVERYTHING
        while got < end:
            if end == EVERYTHING and self.done < self.cuts and self.plan[self.done] <= len(self.numbers):
                end = got + self.choose.randrange(self.span)
            async with asyncio.timeout(60):
                data = await reader.read(min(end - got, 65_536))
            got += len(data)
            yield data
            if not data and got < end:
                return
        self.done += 1

    async def talk(self, writer: asyncio.StreamWriter, received: AsyncIterator[bytes]) -> None:
        raise NotImplementedError

    def take(self, page: Page) -> None:
        for line in page["results"]:
            assert not line["text"].startswith("WARN"), line
            if line["ptype"] == "writer":
                self.numbers.append(int(line["text"].split()[0]))
        self.cursor = page["cursor"]


class PageReader(Reader):
    """Asks for one page after another."""

    async def talk(self, writer: asyncio.StreamWriter, received: AsyncIterator[bytes]) -> None:
        query = urlencode({"cursor": self.cursor, "limit": 200, "ptype": "writer"})
        writer.write(
            f"GET /v2/apps/{self.app}/lines/?{query} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n"
            f"Authorization: token {self.ann.token}\r\n\r\n".encode()
        )
        head, end, body = b"".join([data async for data in received]).partition(b"\r\n\r\n")
        size = LENGTH.search(head)
        if end and size and len(body) == int(size[1]) and head.split()[1] == b"200":
            self.span = len(head) + len(body)
            self.take(json.loads(body))


class Follower(Reader):
    """Holds a websocket open and goes on by the cursor of the last whole message."""

    async def talk(self, writer: asyncio.StreamWriter, received: AsyncIterator[bytes]) -> None:
        protocol = ClientProtocol(parse_uri(f"ws://localhost/v2/apps/{self.app}/logs"), max_size=None)
        request = protocol.connect()
        request.headers["Authorization"] = f"token {self.ann.token}"
        protocol.send_request(request)
        writer.write(b"".join(protocol.data_to_send()))
        async for data in received:
            protocol.receive_data(data)
            for event in protocol.events_received():
                self._handle(protocol, event)
            writer.write(b"".join(protocol.data_to_send()))
            if len(self.numbers) >= self.count:
                return

    def _handle(self, protocol: ClientProtocol, event: object) -> None:
        if isinstance(event, Response):
            assert event.status_code in (101, 503), event
            ask = {"cursor": self.cursor, "lines": 3000, "follow": True, "timeout": 300}
            protocol.send_text(json.dumps(ask).encode())
        elif isinstance(event, Frame) and event.opcode is Opcode.TEXT:
            self.take(json.loads(bytes(event.data)))
