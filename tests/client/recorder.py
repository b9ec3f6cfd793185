"""A proxy that keeps every request that passes, with its answer, as it was on the wire."""

import asyncio
import http.client
import json
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from io import BytesIO
from typing import Any

from tests.client.prints import Answer


@dataclass
class Exchange:
    """One connection: what went in and what came out."""

    sent: bytes = b""
    got: bytes = b""

    @property
    def method(self) -> str:
        return "WS" if "Upgrade" in self.headers else self.sent.split(b" ", 2)[0].decode()

    @property
    def path(self) -> str:
        return self.sent.split(b" ", 2)[1].decode()

    @property
    def headers(self) -> dict[str, str]:
        head = self.sent.split(b"\r\n\r\n", 1)[0].decode().split("\r\n")[1:]
        return {name: value.strip() for name, _, value in (line.partition(":") for line in head)}

    @property
    def body(self) -> Any:
        """JSON, or None when there is none; of a websocket the first message."""
        rest = self.sent.split(b"\r\n\r\n", 1)[1]
        text = next(frames(rest), "") if self.method == "WS" else rest.decode()
        return json.loads(text) if text else None

    @property
    def answer(self) -> Answer:
        if self.method == "WS" and self.got.startswith(b"HTTP/1.1 101"):
            return Answer(101, messages=list(frames(self.got.split(b"\r\n\r\n", 1)[1])))
        response = http.client.HTTPResponse(Bytes(self.got), method=self.method)  # type: ignore[arg-type]
        response.begin()
        text = response.read().decode()
        headers: Mapping[str, str] = {name.lower(): value for name, value in response.getheaders()}
        return Answer(response.status, headers, text)


@dataclass
class Bytes:
    """As much of a socket as the parser of answers wants."""

    got: bytes

    def makefile(self, mode: str) -> BytesIO:
        return BytesIO(self.got)


def frames(data: bytes) -> Iterator[str]:
    """The text of a websocket's messages; none of ours comes in pieces."""
    while len(data) > 1:
        kind, size, data = data[0] & 15, data[1], data[2:]
        is_masked, size = size > 127, size & 127
        if size > 125:
            width = 2 if size == 126 else 8
            size, data = int.from_bytes(data[:width]), data[width:]
        mask, data = (data[:4], data[4:]) if is_masked else (bytes(4), data)
        text, data = bytes(byte ^ mask[at % 4] for at, byte in enumerate(data[:size])), data[size:]
        if kind in (1, 2):
            yield text.decode()


@dataclass
class Recorder:
    """Listens on `port`; `take` gives what has passed since the last time."""

    upstream: int
    port: int = 0
    passed: list[Exchange] = field(default_factory=list)
    serving: set[asyncio.Task[None]] = field(default_factory=set)

    def take(self) -> list[Exchange]:
        passed, self.passed = self.passed, []
        return passed

    def accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.create_task(self.serve(reader, writer))
        self.serving.add(task)
        task.add_done_callback(self.serving.discard)

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        exchange = Exchange()
        self.passed.append(exchange)
        above = await asyncio.open_connection("127.0.0.1", self.upstream)
        try:
            async with asyncio.TaskGroup() as both:
                both.create_task(self.carry(reader, above[1], exchange, "sent"))
                both.create_task(self.carry(above[0], writer, exchange, "got"))
        finally:
            writer.close()
            above[1].close()

    async def carry(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, exchange: Exchange, name: str
    ) -> None:
        with suppress(OSError):  # the other side may be gone already
            while data := await reader.read(65536):
                setattr(exchange, name, getattr(exchange, name) + data)
                writer.write(data)
                await writer.drain()
            writer.write_eof()


@asynccontextmanager
async def recording(upstream: int) -> AsyncIterator[Recorder]:
    recorder = Recorder(upstream)
    server = await asyncio.start_server(recorder.accept, "127.0.0.1", 0)
    async with server:
        recorder.port = server.sockets[0].getsockname()[1]
        yield recorder
        await asyncio.gather(*recorder.serving)
