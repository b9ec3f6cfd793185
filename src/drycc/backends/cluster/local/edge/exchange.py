"""One request on its way: which pod gets it, what is passed on, and how it ends.

A request goes to a second pod only when not one byte of it went to the first, or when it may be
repeated and the reused connection it went to was closed without an answer (RFC 9112, 9.3.1).
"""

import asyncio
from typing import TYPE_CHECKING

from drycc.backends.cluster.local.edge import pages
from drycc.backends.cluster.local.edge.access import mask
from drycc.backends.cluster.local.edge.answer import CONTINUE, Answer
from drycc.backends.cluster.local.edge.headers import FieldList
from drycc.backends.cluster.local.edge.link import Link
from drycc.backends.cluster.local.edge.pages import Page
from drycc.backends.cluster.local.edge.pods import Pod, Route
from drycc.backends.cluster.local.edge.request import Request

if TYPE_CHECKING:
    from drycc.backends.cluster.local.edge.client import Client

CONTINUE_AFTER = 1.0  # seconds without a word of the app; then the client is told to send
CLIENT_GONE = 499  # in access lines, when nothing was answered


class Exchange:
    """Belongs to a client's connection, which feeds it the request; a link feeds it the answer."""

    def __init__(self, client: "Client", request: Request) -> None:
        self.client = client
        self.request = request
        self.link: Link | None = None
        self.is_received = False  # the whole request is here
        self.is_tunnel = False  # bytes both ways, after 101
        self._server = client.server
        self._loop = client.server.loop
        self._id = client.server.new_request_id()
        self._answer = Answer(request, self._id)
        self._began = self._loop.time()
        self._app = ""
        self._pod: Pod | None = None
        self._up: list[bytes] = []  # body for the pod
        self._connecting: asyncio.Task[None] | None = None
        self._continue_timer: asyncio.TimerHandle | None = None

    # the request, fed by the client's connection

    @property
    def wants_more(self) -> bool:
        """More may be read from the client now."""
        if self.is_tunnel or not self.is_received:
            return not self.link.is_clogged if self.link is not None else not self._up
        return True

    def begin(self) -> None:
        """Send the request on its way, with what has come of its body."""
        route = self._server.table.find(self.request.host)
        if route is None or not route.is_routable:
            self.refuse(pages.NO_APP)
            return
        self._app = route.app
        if route.pods:
            self._send(route)
        else:
            self.refuse(pages.STARTING if route.replicas else pages.NO_PROCESS)

    def receive(self, data: bytes) -> None:
        """A piece of the body."""
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
        """Send the pod what has come."""
        if self._up and self.link is not None:
            self.link.transport.write(b"".join(self._up))
            self._up.clear()

    def pass_up(self, data: bytes) -> None:
        """Bytes of the tunnel."""
        if self.link is not None:
            self.link.transport.write(data)

    def refuse(self, page: Page) -> None:
        """Answer in the app's place; an answer that has begun is cut off instead."""
        self._close_link()
        if self._answer.status:
            self.client.abort()
            return
        self._answer.add_page(page, keeps_alive=self._keeps_alive)
        self.deliver()

    def leave(self) -> None:
        """The client is gone."""
        self._close_link()
        self._end()

    # the pod

    def _send(self, route: Route) -> None:
        """A request that must not be repeated gets a new link: a pod may close an old one at any time."""
        pod = route.pick(set())
        link = pod.take() if pod and self.request.is_repeatable else None
        if pod and link:
            self._hold(pod)
            self._attach(link)
        else:
            self._connect_to(pod)

    def _connect_to(self, pod: Pod | None) -> None:
        self._connecting = self._loop.create_task(self._connect(pod))

    async def _connect(self, pod: Pod | None) -> None:
        """Send it to this pod or, where that takes no connection, to the next one that does."""
        tried: set[Pod] = set()
        while pod is not None:
            tried.add(pod)
            self._hold(pod)
            try:
                link = await pod.connect()
            except OSError:
                self._let_go()
                pod = self._pick(tried)
                continue
            self._connecting = None
            self._attach(link)
            self.client.balance()
            return
        self._connecting = None
        self.refuse(pages.NO_ANSWER)

    def _pick(self, tried: set[Pod]) -> Pod | None:
        """By the table as it is now."""
        route = self._server.table.find(self.request.host)
        return route.pick(tried) if route else None

    def _attach(self, link: Link) -> None:
        self.link = link
        link.carry(self)
        head = self.request.write_head(self.client.forwarded, self.client.peer, self._id)
        link.transport.write(head + b"".join(self._up))
        self._up.clear()
        if self.request.waits_for_continue and not self.is_received:
            self._continue_timer = self._loop.call_later(CONTINUE_AFTER, self._tell_continue)
        if self.client.is_clogged:
            link.transport.pause_reading()

    def _hold(self, pod: Pod) -> None:
        self._pod = pod
        pod.begin()

    def _let_go(self) -> None:
        pod, self._pod = self._pod, None
        if pod is not None:
            pod.end()

    def lose_link(self, *, is_clean: bool) -> None:
        """The pod has ended the connection."""
        link, self.link = self.link, None
        assert link is not None
        link.close()
        if self.is_tunnel:
            self._end()
        elif self._answer.ends_with_link and is_clean:
            self.receive_end()
            self.deliver()
        elif link.is_reused and not link.is_answered and self.request.is_repeatable:
            self._let_go()
            self._connect_to(self._pick(set()))
        else:
            self.refuse(pages.BROKEN_ANSWER)

    # the answer, fed by the link; a ValueError tells it that the pod speaks no sense

    def receive_interim(self, status: int, reason: bytes, fields: FieldList) -> bool:
        """An answer before the answer; says whether only bytes follow."""
        if status == 100:
            self._tell_continue()
        elif status == 101:
            self._answer.begin_switch(reason, fields)
            self.is_tunnel = True
            self.pass_up(self.client.take_tail())
            self.client.balance()
        else:
            self._answer.add_interim(status, reason, fields)
        return self.is_tunnel

    def receive_head(self, status: int, reason: bytes, fields: FieldList) -> bool:
        """The head of the answer; says whether it stands alone because of HEAD."""
        self._stop_timer()
        self._answer.begin(status, reason, fields, keeps_alive=self._keeps_alive)
        return self.request.method == b"HEAD"

    def receive_body(self, data: bytes) -> None:
        self._answer.add(data)

    def receive_end(self) -> None:
        self._answer.end()

    def pass_down(self, data: bytes) -> None:
        """Bytes of the tunnel."""
        self._answer.add(data)
        self.deliver()

    def deliver(self) -> None:
        """Send the client what has come from the pod; end when that was all."""
        if ready := self._answer.take():
            self.client.write(ready)
        if self._answer.is_complete:
            self._end()

    @property
    def _keeps_alive(self) -> bool:
        return self.request.keeps_alive and self.is_received and not self._server.is_draining

    def _tell_continue(self) -> None:
        """Once, and only a client that waits for it."""
        if self.request.waits_for_continue:
            self.request.waits_for_continue = False
            self.client.write(CONTINUE)

    def _stop_timer(self) -> None:
        if self._continue_timer is not None:
            self._continue_timer.cancel()
            self._continue_timer = None

    # the end

    def _end(self) -> None:
        """Free what is held; the client's connection goes on to the next request."""
        self._stop_timer()
        if self._connecting is not None:
            self._connecting.cancel()
            self._connecting = None
        self._return_link()
        self._let_go()
        self._log()
        self.client.end_exchange(keeps_alive=self._answer.keeps_alive)

    def _return_link(self) -> None:
        """Keep it for another request where that is possible.

        After a body it never is: what the app has not read of that would be its next request.
        """
        link, self.link = self.link, None
        if link is None or self._pod is None:
            return
        if link.release(self._loop.time()) and self.is_received and not self.request.has_body:
            link.transport.resume_reading()
            self._pod.put(link)
        else:
            link.close()

    def _close_link(self) -> None:
        link, self.link = self.link, None
        if link is not None:
            link.close()

    def _log(self) -> None:
        if self._app:
            request, answer = self.request, self._answer
            target = mask(request.target.decode("latin-1"))
            milliseconds = (self._loop.time() - self._began) * 1000
            self._server.access.add(
                self._app,
                f"{request.method.decode()} {target} {answer.status or CLIENT_GONE} {answer.size}"
                f" {milliseconds:.1f}ms {self.client.peer} {self._id.decode()}",
            )
