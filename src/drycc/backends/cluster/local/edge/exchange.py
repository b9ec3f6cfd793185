"""One request and its answer: which pod gets it, what is passed on, and how it ends.

A request is sent to a second pod only when not one byte of it went to the first, or when it may be
repeated and came on a connection that had been closed before (RFC 9112, 9.3.1).
"""

import asyncio
from typing import TYPE_CHECKING

from drycc.backends.cluster.local.edge import headers, pages
from drycc.backends.cluster.local.edge.access import mask
from drycc.backends.cluster.local.edge.link import Link
from drycc.backends.cluster.local.edge.pages import Page
from drycc.backends.cluster.local.edge.pods import Pod, Route
from drycc.backends.cluster.local.edge.request import Request

if TYPE_CHECKING:
    from drycc.backends.cluster.local.edge.client import Client

CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"
CONTINUE_AFTER = 1.0  # seconds without a word of the app; then the client is told to send
CLIENT_GONE = 499  # in access lines, when nothing was answered


class Exchange:
    """Belongs to a client's connection, which feeds it the request; a link feeds it the answer."""

    def __init__(self, client: "Client", request: Request) -> None:
        self.client = client
        self.request = request
        self.link: Link | None = None
        self.is_received = False  # the whole request is here
        self.is_tunnel = False
        self._loop = client.server.loop
        self._up: list[bytes] = []  # for the pod
        self._down: list[bytes] = []  # for the client
        self._app = ""
        self._id = b""
        self._pod: Pod | None = None
        self._connecting: asyncio.Task[None] | None = None
        self._continue_timer: asyncio.TimerHandle | None = None
        self._status = 0
        self._sent = 0  # bytes of body
        self._began = 0.0
        self._is_chunked = False  # the answer, to the client
        self._ends_with_link = False  # the answer has no length
        self._is_answered = False  # wholly
        self._keeps_alive = False

    # the request

    @property
    def wants_more(self) -> bool:
        """More of the request may be read from the client now."""
        if self.is_received:
            return True
        if self.link is None:
            return not self._up
        return not self.link.is_clogged

    def begin(self) -> None:
        """Send the request on its way, with what has come of its body."""
        server = self.client.server
        self._began = server.loop.time()
        self._id = server.new_request_id()
        route = server.table.find(self.request.host)
        page = _choose_page(route)
        if route is None or page is not None:
            self.refuse(page or pages.NO_APP)
            return
        self._app = route.app
        self._send(route)

    def receive(self, data: bytes) -> None:
        """A piece of the body from the client."""
        if self.request.is_chunked:
            self._up += (b"%x\r\n" % len(data), data, b"\r\n")
        else:
            self._up.append(data)

    def receive_all(self) -> None:
        """The request is complete."""
        self.is_received = True
        if self.request.is_chunked:
            self._up.append(b"0\r\n\r\n")

    def flush(self) -> None:
        """Send the pod what has come from the client."""
        if self._up and self.link is not None:
            self.link.transport.write(b"".join(self._up))
            self._up.clear()

    def refuse(self, page: Page) -> None:
        """Answer in the app's place; an answer that has begun is cut off instead."""
        self._drop_link()
        if self._status:
            self.client.abort()
            return
        self._status = page[0]
        self._keeps_alive = self.request.keeps_alive and self.is_received
        lines, body = pages.render(page, with_body=self.request.method != b"HEAD")
        self._sent = len(body)
        self._write_head(lines)
        self._down.append(body)
        self._is_answered = True
        self.deliver()

    def leave(self) -> None:
        """The client is gone."""
        self._drop_link()
        self._end()

    # the pod

    def _send(self, route: Route) -> None:
        pod = route.pick(set()) if self.request.is_repeatable else None
        link = pod.take() if pod else None
        if pod and link:
            self._hold(pod)
            self._attach(link)
        else:
            self._connecting = self._loop.create_task(self._connect())

    async def _connect(self) -> None:
        """Send it to the first pod that takes a connection; the table may turn meanwhile."""
        tried: set[Pod] = set()
        table = self.client.server.table
        while (route := table.find(self.request.host)) and (pod := route.pick(tried)):
            tried.add(pod)
            self._hold(pod)
            try:
                link = await pod.connect()
            except OSError:
                self._let_go()
            else:
                self._connecting = None
                self._attach(link)
                self.client.balance()
                return
        self._connecting = None
        self.refuse(pages.NO_ANSWER)

    def _attach(self, link: Link) -> None:
        client = self.client
        self.link = link
        link.carry(self)
        head = self.request.write_head(client.forwarded, client.peer, self._id)
        link.transport.write(head + b"".join(self._up))
        self._up.clear()
        if self.request.waits_for_continue and not self.is_received:
            self._continue_timer = self._loop.call_later(CONTINUE_AFTER, self._tell_continue)
        if client.is_clogged:
            link.transport.pause_reading()

    def _hold(self, pod: Pod) -> None:
        self._pod = pod
        pod.begin()

    def _let_go(self) -> None:
        if self._pod is not None:
            self._pod.end()
            self._pod = None

    def _drop_link(self) -> None:
        link, self.link = self.link, None
        if link is not None:
            link.close()

    def lose_link(self, *, is_clean: bool) -> None:
        """The pod's connection has ended."""
        link, self.link = self.link, None
        assert link is not None
        link.close()
        if self.is_tunnel:
            self._end()
        elif self._ends_with_link and is_clean:
            self.receive_end()
            self.deliver()
        elif link.is_reused and not link.is_answered and self.request.is_repeatable:
            self._let_go()
            self._connecting = self._loop.create_task(self._connect())
        else:
            self.refuse(pages.BROKEN_ANSWER)

    # the answer

    def receive_interim(self, status: int, reason: bytes, fields: headers.FieldList) -> bool:
        """An answer before the answer; says whether the connection changes to another protocol."""
        if status == 100:
            self._tell_continue()
        elif status == 101:
            self._open_tunnel(reason, fields)
        elif self.request.version == "1.1":
            self._down += (*_write_answer(status, reason, fields), b"\r\n")
        return self.is_tunnel

    def receive_head(self, status: int, reason: bytes, fields: headers.FieldList) -> bool:
        """The head of the answer; says whether it stands alone because of HEAD."""
        self._status = status
        self._keeps_alive = self.request.keeps_alive and self.is_received
        is_head = self.request.method == b"HEAD"
        if not is_head and status not in (204, 304):
            self._choose_framing(fields)
        self._write_head(_write_answer(status, reason, fields))
        return is_head

    def receive_body(self, data: bytes) -> None:
        self._sent += len(data)
        if self._is_chunked:
            self._down += (b"%x\r\n" % len(data), data, b"\r\n")
        else:
            self._down.append(data)

    def receive_end(self) -> None:
        self._is_answered = True
        if self._is_chunked:
            self._down.append(b"0\r\n\r\n")

    def deliver(self) -> None:
        """Send the client what has come from the pod; end when that was all."""
        if self._down:
            self.client.write(b"".join(self._down))
            self._down.clear()
        if self._is_answered:
            self._end()

    def _tell_continue(self) -> None:
        if self.request.waits_for_continue:
            self.request.waits_for_continue = False
            self.client.write(CONTINUE)

    def _choose_framing(self, fields: headers.FieldList) -> None:
        """An answer without a length is chunked for the client, or ends with its connection."""
        coding = _find_field(fields, b"transfer-encoding").lower()
        if coding not in (b"", b"chunked"):
            raise ValueError(coding)  # the parser hands this on as a broken answer
        if not coding and _find_field(fields, b"content-length"):
            return
        self._ends_with_link = not coding
        self._is_chunked = self.request.version == "1.1"
        self._keeps_alive = self._keeps_alive and self._is_chunked

    def _write_head(self, lines: list[bytes]) -> None:
        self._stop_timer()
        if self.client.server.is_draining:
            self._keeps_alive = False
        self._down += lines
        self._down += (b"X-Request-Id: ", self._id, b"\r\n")
        if self._is_chunked:
            self._down.append(b"Transfer-Encoding: chunked\r\n")
        if not self._keeps_alive:
            self._down.append(b"Connection: close\r\n")
        elif self.request.version == "1.0":
            self._down.append(b"Connection: keep-alive\r\n")
        self._down.append(b"\r\n")

    def _stop_timer(self) -> None:
        if self._continue_timer is not None:
            self._continue_timer.cancel()
            self._continue_timer = None

    # the tunnel

    def _open_tunnel(self, reason: bytes, fields: headers.FieldList) -> None:
        if not self.request.upgrade:
            raise ValueError("nobody asked for another protocol")
        self.is_tunnel = True
        self._status = 101
        self._down += _write_answer(101, reason, fields)
        upgrade = _find_field(fields, b"upgrade")
        self._down += (b"Connection: Upgrade\r\nUpgrade: ", upgrade, b"\r\nX-Request-Id: ", self._id)
        self._down.append(b"\r\n\r\n")
        self.pass_up(self.client.take_tail())

    def pass_up(self, data: bytes) -> None:
        """Bytes of the tunnel to the pod."""
        if self.link is not None:
            self.link.transport.write(data)

    def pass_down(self, data: bytes) -> None:
        """Bytes of the tunnel to the client."""
        self._sent += len(data)
        self._down.append(data)
        self.deliver()

    # the end

    def _end(self) -> None:
        """Free what the exchange holds; the client's connection goes on to the next one."""
        self._stop_timer()
        if self._connecting is not None:
            self._connecting.cancel()
            self._connecting = None
        self._let_go_of_link()
        self._let_go()
        self._log()
        self.client.end_exchange(keeps_alive=self._keeps_alive)

    def _let_go_of_link(self) -> None:
        link, self.link = self.link, None
        if link is None:
            return
        if link.release(self._loop.time()) and self.is_received and self._pod is not None:
            link.transport.resume_reading()
            self._pod.put(link)
        else:
            link.close()

    def _log(self) -> None:
        if not self._app:
            return
        method, target = self.request.method.decode(), mask(self.request.target.decode("latin-1"))
        milliseconds = (self._loop.time() - self._began) * 1000
        self.client.server.access.add(
            self._app,
            f"{method} {target} {self._status or CLIENT_GONE} {self._sent} {milliseconds:.1f}ms"
            f" {self.client.peer} {self._id.decode()}",
        )


def _choose_page(route: Route | None) -> Page | None:
    """What the edge answers itself, if it does."""
    if route is None or not route.is_routable:
        return pages.NO_APP
    if route.pods:
        return None
    return pages.STARTING if route.replicas else pages.NO_PROCESS


def _write_answer(status: int, reason: bytes, fields: headers.FieldList) -> list[bytes]:
    lines = [b"HTTP/1.1 %d %b\r\n" % (status, reason)]
    lines += headers.write_fields(fields, headers.DROPPED_OF_RESPONSE)
    return lines


def _find_field(fields: headers.FieldList, wanted: bytes) -> bytes:
    """The first field of this lower-case name; empty without one."""
    return next((value for name, value in fields if name.lower() == wanted), b"")
