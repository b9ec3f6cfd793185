"""A client's connection: its requests, one after another, each answered before the next begins."""

import asyncio
from collections import deque
from typing import TYPE_CHECKING

import httptools

from drycc.backends.cluster.local.edge import headers, pages
from drycc.backends.cluster.local.edge.exchange import Exchange
from drycc.backends.cluster.local.edge.link import BUFFER
from drycc.backends.cluster.local.edge.pages import Page, Refused
from drycc.backends.cluster.local.edge.request import HEAD_LIMIT, Request

if TYPE_CHECKING:
    from drycc.backends.cluster.local.edge.server import Server

HEAD_WITHIN = 30.0  # seconds, from the first byte of a head to its last
LINGER = 10.0  # seconds for a client to read an answer that came before its request was complete
MAX_AHEAD = 64  # requests that a client may send before the first is answered


class Client(asyncio.BufferedProtocol):
    transport: asyncio.Transport

    def __init__(self, server: "Server") -> None:
        self.server = server
        self.peer = ""
        self.forwarded = b""
        self.is_clogged = False  # the client reads slower than the pod answers
        self.touched = self._head_since = server.loop.time()
        self._current: Exchange | None = None
        self._queue: deque[Exchange] = deque()
        self._receiving: Exchange | None = None  # its request is not complete yet
        self._refusal: Page | None = None  # for what comes after the queue; nothing is read any more
        self._tail: bytes | None = None  # what came behind a wish to upgrade
        self._lingers_until = 0.0
        self._is_at_end = False  # the client sends no more
        self._start_parser()

    # transport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport
        self.peer = transport.get_extra_info("peername")[0].removeprefix("::ffff:")
        port = transport.get_extra_info("sockname")[1]
        self.forwarded = headers.write_forwarded(self.peer, port)
        self.server.clients.add(self)

    def get_buffer(self, sizehint: int) -> memoryview:
        return BUFFER

    def buffer_updated(self, nbytes: int) -> None:
        self.touched = self.server.loop.time()
        if self._current is not None and self._current.is_tunnel:
            self._current.pass_up(bytes(BUFFER[:nbytes]))
        elif not self._lingers_until and self._refusal is None:
            self._feed(BUFFER[:nbytes])
            self.advance()
        self.balance()

    def eof_received(self) -> bool:
        """The client may still wait for its answer; without a whole request there is none to wait for."""
        self._is_at_end = True
        is_tunnel = self._current is not None and self._current.is_tunnel
        if is_tunnel or self._lingers_until or self._receiving is not None:
            self.transport.close()
        self.advance()
        return True

    def connection_lost(self, exc: Exception | None) -> None:
        self.server.forget(self)
        self._queue.clear()
        if self._current is not None:
            self._current.leave()

    def pause_writing(self) -> None:
        self.is_clogged = True
        if self._current is not None and self._current.link is not None:
            self._current.link.transport.pause_reading()

    def resume_writing(self) -> None:
        self.is_clogged = False
        if self._current is not None and self._current.link is not None:
            self._current.link.transport.resume_reading()

    # what exchanges, links and the server ask for

    def write(self, data: bytes) -> None:
        self.touched = self.server.loop.time()
        self.transport.write(data)

    def abort(self) -> None:
        """Cut the connection, so that the client sees an incomplete answer as one."""
        self.transport.abort()

    def take_tail(self) -> bytes:
        tail, self._tail = self._tail, None
        return tail or b""

    def end_exchange(self, *, keeps_alive: bool) -> None:
        """The current exchange is over."""
        self._current = None
        if self.transport.is_closing():
            return
        if not keeps_alive:
            self._close()
        elif self._queue or self._refusal or self._is_at_end or self._tail is not None:
            self.server.loop.call_soon(self.advance)

    def advance(self) -> None:
        """Begin the next request, or send on what has come of the one in progress."""
        self._begin_next()
        if self._current is None and self._tail is not None:
            self._feed(memoryview(self.take_tail()))  # the upgrade was declined
            self._begin_next()
        if self._current is not None:
            self._current.flush()
        elif self._refusal is not None:
            self._answer_refusal(self._refusal)
        elif self._is_at_end:
            self.transport.close()
        self.balance()

    def _begin_next(self) -> None:
        while self._current is None and self._queue and not self._lingers_until:
            self._current = self._queue.popleft()
            self._current.begin()

    def balance(self) -> None:
        """Read from the client only what somebody takes."""
        if self._wants_more():
            self.transport.resume_reading()
        else:
            self.transport.pause_reading()

    def sweep(self, now: float) -> None:
        """Called every now and then: end what takes too long."""
        if self._lingers_until:
            if now > self._lingers_until:
                self.abort()
        elif self._is_reading_head and now - self._head_since > HEAD_WITHIN:
            self._refuse(pages.TOO_SLOW)
            self.advance()
        elif now > self.server.closes_idle_at and self._current is None:
            self.transport.close()
        elif now - self.touched > self.server.idle_timeout:
            self._expire()

    def _wants_more(self) -> bool:
        if self._lingers_until:
            return True
        if self._queue or self._refusal is not None or self._tail is not None:
            return False
        return self._current is None or self._current.wants_more

    def _expire(self) -> None:
        if self._current is None or self.transport.is_closing():
            self.abort()
        else:
            self._current.refuse(pages.SILENT)

    def _close(self) -> None:
        """Close once all is sent; a client that still sends gets time to read what it was told."""
        self._queue.clear()
        if self._receiving is None and self._refusal is None:
            self.transport.close()
            return
        self._receiving = None
        self._lingers_until = self.server.loop.time() + LINGER
        self.transport.write_eof()
        if self._is_at_end:
            self.transport.close()
        self.balance()

    # requests

    def _start_parser(self) -> None:
        self._parser = httptools.HttpRequestParser(self)
        self._unproductive = 0
        self._is_reading_head = self._is_repeating = False

    def _feed(self, data: memoryview) -> None:
        self._unproductive += len(data)
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserUpgrade as stop:
            self._stop_parsing(data[stop.args[0] :])
        except httptools.HttpParserError as error:
            self._refuse(
                error.__context__.page if isinstance(error.__context__, Refused) else pages.BAD_REQUEST
            )
        if self._unproductive > HEAD_LIMIT:
            self._refuse(pages.TOO_LARGE)

    def _stop_parsing(self, tail: memoryview) -> None:
        """The request asks for an upgrade. If it cannot have one, the parser must read on all the same."""
        exchange = self._receiving
        assert exchange is not None
        self._start_parser()
        if exchange.request.upgrade:
            self.on_message_complete()
            self._tail = bytes(tail)
            return
        self._is_repeating = True
        self._parser.feed_data(exchange.request.write_framing())
        self._feed(tail)

    def _refuse(self, page: Page) -> None:
        """Nothing after this can be understood; what came before is answered first."""
        if self._refusal is not None:
            return
        self._refusal = page
        self._is_reading_head = False
        receiving, self._receiving = self._receiving, None
        if receiving is not None and receiving is self._current:
            receiving.refuse(page)
        elif receiving is not None:
            self._queue.remove(receiving)

    def _answer_refusal(self, page: Page) -> None:
        if self._lingers_until or self.transport.is_closing():
            return
        lines, body = pages.render(page)
        self.write(b"".join((*lines, b"Connection: close\r\n\r\n", body)))
        self._close()

    def on_message_begin(self) -> None:
        if self._is_repeating:
            return
        self._request = Request()
        self._is_reading_head = True
        self._head_since = self.touched

    def on_url(self, data: bytes) -> None:
        if self._is_reading_head:
            self._request.target += data
            self._request.size += len(data)

    def on_header(self, name: bytes, value: bytes) -> None:
        if self._is_reading_head:  # else it is a trailer field
            self._request.fields.append((name, value))
            self._request.size += len(name) + len(value) + 4

    def on_headers_complete(self) -> None:
        if self._is_repeating:
            self._is_repeating = False
            return
        request, parser = self._request, self._parser
        self._is_reading_head = False
        request.method = parser.get_method()
        request.version = parser.get_http_version()
        request.keeps_alive = parser.should_keep_alive()
        request.check(wants_upgrade=parser.should_upgrade())
        if len(self._queue) >= MAX_AHEAD:
            raise Refused(pages.TOO_MANY)
        self._receiving = Exchange(self, request)
        self._queue.append(self._receiving)

    def on_body(self, data: bytes) -> None:
        self._unproductive = 0
        if self._receiving is not None:
            self._receiving.receive(data)

    def on_message_complete(self) -> None:
        self._unproductive = 0
        if self._receiving is not None and not self._parser.should_upgrade():
            self._receiving.receive_all()
            self._receiving = None
