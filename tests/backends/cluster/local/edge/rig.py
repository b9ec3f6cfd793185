"""An edge as the platform runs it, pods that are small real servers, and a client that sees every byte."""

import asyncio
import json
import shutil
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import mkdtemp
from types import TracebackType
from typing import Any, Self
from uuid import uuid4

from drycc.backends.cluster.local.edge.control import Edge
from drycc.backends.cluster.local.edge.snapshot import AppRoutes, Endpoint, Snapshot
from drycc.kit import process
from tests.postgres import free_port

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"


@dataclass
class Message:
    """A request or an answer; `fields` as they came, in order."""

    line: str
    fields: list[tuple[str, str]]
    body: bytes = b""

    def get(self, name: str) -> str | None:
        values = self.all(name)
        assert len(values) < 2, (name, values)
        return values[0] if values else None

    def all(self, name: str) -> list[str]:
        return [value for key, value in self.fields if key.lower() == name.lower()]

    @property
    def status(self) -> int:
        return int(self.line.split()[1])


async def read_head(reader: asyncio.StreamReader) -> Message:
    head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
    line, *rest = head.removesuffix("\r\n\r\n").split("\r\n")
    pairs = (field.partition(":") for field in rest)
    return Message(line, [(name, value.strip()) for name, _, value in pairs])


async def read_chunks(reader: asyncio.StreamReader) -> bytes:
    pieces = []
    while size := int((await reader.readline()).split(b";")[0], 16):
        pieces.append((await reader.readexactly(size + 2))[:-2])
    while await reader.readline() != b"\r\n":
        pass
    return b"".join(pieces)


async def read_request(reader: asyncio.StreamReader) -> Message:
    request = await read_head(reader)
    if request.get("transfer-encoding"):
        request.body = await read_chunks(reader)
    else:
        request.body = await reader.readexactly(int(request.get("content-length") or 0))
    return request


Handler = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]
Respond = Callable[[Message], bytes]


@dataclass
class Pod:
    """A server on loopback. Give it what it answers, or a handler of whole connections."""

    name: str = "app-web-1"
    respond: Respond = lambda request: OK
    handler: Handler | None = None
    port: int = field(default_factory=free_port)
    host: str = "127.0.0.1"

    def __post_init__(self) -> None:
        self.received: list[Message] = []
        self.connections = 0
        self._tasks: set[asyncio.Task[None] | None] = set()
        self._writers: set[asyncio.StreamWriter] = set()

    @property
    def endpoint(self) -> Endpoint:
        return Endpoint(self.name, self.port)

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._serve, self.host, self.port, limit=2**20)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.die()

    async def die(self) -> None:
        """Take no more connections and cut those that are open."""
        self._server.close()
        for writer in list(self._writers):
            writer.transport.abort()
        for task in self._tasks:
            if task is not None:
                task.cancel()
        await self._server.wait_closed()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        self._writers.add(writer)
        self._tasks.add(asyncio.current_task())
        with suppress(asyncio.IncompleteReadError, ConnectionError, asyncio.CancelledError):
            await (self.handler or self._answer)(reader, writer)
        writer.close()
        with suppress(ConnectionError, asyncio.CancelledError):
            await writer.wait_closed()
        self._writers.discard(writer)

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while True:
            request = await read_request(reader)
            self.received.append(request)
            writer.write(self.respond(request))
            await writer.drain()


async def until(condition: Callable[[], object]) -> None:
    async with asyncio.timeout(10):
        while not condition():  # noqa: ASYNC110
            await asyncio.sleep(0.01)


class Wire:
    """A client's connection, byte by byte."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer

    def send(self, *data: bytes) -> None:
        self.writer.write(b"".join(data))

    async def head(self) -> Message:
        async with asyncio.timeout(10):
            return await read_head(self.reader)

    async def answer(self, method: str = "GET") -> Message:
        """The next answer, whole."""
        async with asyncio.timeout(10):
            answer = await read_head(self.reader)
            if method == "HEAD" or answer.status in (204, 304) or answer.status < 200:
                return answer
            if answer.get("transfer-encoding"):
                answer.body = await read_chunks(self.reader)
            elif (length := answer.get("content-length")) is not None:
                answer.body = await self.reader.readexactly(int(length))
            else:
                answer.body = await self.reader.read()
            return answer

    async def take(self, count: int) -> bytes:
        async with asyncio.timeout(20):
            return await self.reader.readexactly(count)

    async def rest(self) -> bytes:
        """All that comes until the edge closes."""
        async with asyncio.timeout(20):
            return await self.reader.read()


def get(target: str = "/", *lines: str, host: str = "app.localhost", method: str = "GET") -> bytes:
    """The bytes of a request without a body."""
    return "\r\n".join((f"{method} {target} HTTP/1.1", f"Host: {host}", *lines, "", "")).encode()


def post(body: bytes, *lines: str, target: str = "/", method: str = "POST") -> bytes:
    return get(target, f"Content-Length: {len(body)}", *lines, method=method) + body


class Rig:
    """One edge in a directory of its own; `control` is the platform's grip on it."""

    def __init__(self, idle_timeout: float = 3600) -> None:
        self.home = Path(mkdtemp(prefix="edge-"))
        self.port = free_port()
        self.instance = uuid4().hex
        self.idle_timeout = idle_timeout
        self.generation = 0
        self.control = self.new_control()

    def new_control(self) -> Edge:
        """Another grip on the same edge, as the next `dryccd` has it."""
        listen = f"127.0.0.1:{self.port}"
        return Edge(self.home / "data", self.home / "run", listen, self.instance, self.idle_timeout)

    async def route(self, *pods: Pod, replicas: int = 1, is_routable: bool = True) -> None:
        """Requests for app.localhost go to these pods."""
        endpoints = tuple(pod.endpoint for pod in pods)
        await self.apply({"app": AppRoutes("web", is_routable, replicas, endpoints)})

    async def apply(self, apps: dict[str, AppRoutes], **hosts: str) -> None:
        self.generation += 1
        names = {f"{app}.localhost": app for app in apps} | hosts
        await self.control.apply(Snapshot(self.generation, names, apps))

    @asynccontextmanager
    async def connect(self) -> AsyncIterator[Wire]:
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port, limit=2**20)
        try:
            yield Wire(reader, writer)
        finally:
            writer.transport.abort()
            with suppress(ConnectionError):
                await writer.wait_closed()

    async def ask(self, request: bytes, method: str = "GET") -> Message:
        """One request on a connection of its own."""
        async with self.connect() as wire:
            wire.send(request)
            return await wire.answer(method)

    async def access(self, answer: Message) -> Any:
        """The access record of the request that got this answer, once it is written."""
        wanted = answer.get("x-request-id") or "-"
        async with asyncio.timeout(10):
            while True:
                lines = self.control.access_file.read_text().splitlines()
                if found := [line for line in lines if wanted in line]:
                    return json.loads(found[0])
                await asyncio.sleep(0.01)

    async def process(self) -> process.Process:
        """The edge; for an instant after its start the kernel shows no environment of it."""
        async with asyncio.timeout(5):
            while True:
                found = await process.find("DRYCC_INSTANCE", self.instance)
                edges = [one for one in found if process.is_alive(one)]
                assert len(edges) < 2, edges
                if edges:
                    return edges[0]

    async def peak(self) -> float:
        """The most memory that the edge has used, in MB."""
        status = Path(f"/proc/{(await self.process()).pid}/status").read_text()
        return int(status.split("VmHWM:")[1].split()[0]) / 1024

    def remove(self) -> None:
        shutil.rmtree(self.home)


@asynccontextmanager
async def running_rig(idle_timeout: float = 3600) -> AsyncIterator[Rig]:
    rig = Rig(idle_timeout)
    try:
        await rig.control.start()
        yield rig
    finally:
        await rig.control.stop()
        rig.remove()
