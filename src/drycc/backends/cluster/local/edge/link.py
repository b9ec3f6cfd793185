"""A connection from the edge to a pod; it carries one request after another."""

import asyncio
from contextlib import suppress
from typing import TYPE_CHECKING

import httptools

from drycc.backends.cluster.local.edge import pages

if TYPE_CHECKING:
    from drycc.backends.cluster.local.edge.exchange import Exchange

HEAD_LIMIT = 256 * 1024  # bytes of an answer that bring no body: its head, trailer, chunk extensions

# Every connection reads into this one buffer and is done with it before the next one reads.
BUFFER = memoryview(bytearray(256 * 1024))


class Link(asyncio.BufferedProtocol):
    """Feeds what a pod answers to the exchange that holds the link."""

    transport: asyncio.Transport

    def __init__(self) -> None:
        self.exchange: Exchange | None = None
        self.is_tunnel = False
        self.is_reused = False
        self.is_answered = False  # a byte of the answer has come
        self.is_clogged = False  # what was written is not on its way yet
        self.keeps_alive = False
        self.idle_since = 0.0
        self._start_parser()

    @property
    def is_usable(self) -> bool:
        return not self.transport.is_closing()

    def carry(self, exchange: "Exchange") -> None:
        """The next answer is for this exchange."""
        self.exchange = exchange
        self.is_answered = self.keeps_alive = self._is_over = False

    def release(self, now: float) -> bool:
        """The exchange is over; says whether the link can carry another."""
        if self._is_headless:
            self._start_parser()
        self.exchange = None
        self.is_reused = True
        self.idle_since = now
        return self.keeps_alive and not self.is_clogged and self.is_usable

    def close(self) -> None:
        self.exchange = None
        self.transport.abort()

    # transport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport

    def get_buffer(self, sizehint: int) -> memoryview:
        return BUFFER

    def buffer_updated(self, nbytes: int) -> None:
        if self.exchange is None:
            self.close()  # it speaks without being asked
        elif self.is_tunnel:
            self.exchange.pass_down(bytes(BUFFER[:nbytes]))
        else:
            self._feed(self.exchange, BUFFER[:nbytes])

    def eof_received(self) -> bool:
        self._lose(is_clean=True)
        return False

    def connection_lost(self, exc: Exception | None) -> None:
        if exc is not None and not self.is_tunnel:
            self._read_rest()
        self._lose(is_clean=exc is None)

    def pause_writing(self) -> None:
        self.is_clogged = True

    def resume_writing(self) -> None:
        self.is_clogged = False
        if self.exchange is not None:
            self.exchange.client.balance()

    def _read_rest(self) -> None:
        """A pod that refuses an upload and closes makes our write fail; what it said waits to be read."""
        with suppress(OSError), self.transport.get_extra_info("socket").dup() as connection:
            while self.exchange is not None and (count := connection.recv_into(BUFFER)):
                self._feed(self.exchange, BUFFER[:count])

    def _lose(self, *, is_clean: bool) -> None:
        exchange, self.exchange = self.exchange, None
        if exchange is not None:
            exchange.lose_link(is_clean=is_clean)

    # answer

    def _start_parser(self) -> None:
        self._parser = httptools.HttpResponseParser(self)
        self._parser.set_dangerous_leniencies(
            lenient_optional_cr_before_lf=True, lenient_spaces_after_chunk_size=True
        )
        self._unproductive = 0
        self._is_over = self._is_headless = False
        self.on_message_begin()

    def _feed(self, exchange: "Exchange", data: memoryview) -> None:
        self.is_answered = True
        self._unproductive += len(data)
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserUpgrade as stop:
            exchange.pass_down(bytes(data[stop.args[0] :]))
        except httptools.HttpParserError:
            self._refuse(exchange)
        if self._unproductive > HEAD_LIMIT:
            self._refuse(exchange)
        exchange.deliver()

    def _refuse(self, exchange: "Exchange") -> None:
        self.keeps_alive = False
        if not self._is_over:
            exchange.refuse(pages.BROKEN_ANSWER)

    def _end(self) -> None:
        self._is_over = True
        self._unproductive = 0
        if self.exchange is not None:
            self.exchange.receive_end()

    def on_message_begin(self) -> None:
        self._reason = b""
        self._fields: list[tuple[bytes, bytes]] = []
        self._has_head = False

    def on_status(self, reason: bytes) -> None:
        self._reason += reason

    def on_header(self, name: bytes, value: bytes) -> None:
        if not self._has_head:  # else it is a trailer field
            self._fields.append((name, value))

    def on_headers_complete(self) -> None:
        self._has_head = True
        status = self._parser.get_status_code()
        if self._is_over or self.exchange is None:
            self.keeps_alive = False  # a second answer to one request
        elif status < 200:
            self.is_tunnel = self.exchange.receive_interim(status, self._reason, self._fields)
        else:
            self.keeps_alive = self._parser.should_keep_alive()
            if self.exchange.receive_head(status, self._reason, self._fields):
                self._is_headless = True  # the parser would wait for the body that HEAD leaves out
                self._end()

    def on_body(self, data: bytes) -> None:
        self._unproductive = 0
        if self._is_over or self.exchange is None:
            self.keeps_alive = False
        else:
            self.exchange.receive_body(data)

    def on_message_complete(self) -> None:
        if not self._is_over and self._parser.get_status_code() >= 200:
            self._end()
