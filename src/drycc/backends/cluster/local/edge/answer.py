"""What a client gets for one request: the head and framing that fit its version, then the body."""

from drycc.backends.cluster.local.edge import pages
from drycc.backends.cluster.local.edge.headers import DROPPED_OF_RESPONSE, FieldList, write_fields
from drycc.backends.cluster.local.edge.pages import Page
from drycc.backends.cluster.local.edge.request import Request

CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"


class Answer:
    """Collects bytes for the client until `take` hands them out."""

    def __init__(self, request: Request, request_id: bytes) -> None:
        self.status = 0  # of the final answer or of the switch to another protocol; 0 before
        self.size = 0  # bytes of body
        self.is_complete = False
        self.keeps_alive = False
        self.ends_with_link = False  # the pod gave no length, so its end is the end of the link
        self._request = request
        self._request_id = request_id
        self._is_chunked = False
        self._ready: list[bytes] = []

    def take(self) -> bytes:
        ready = b"".join(self._ready)
        self._ready.clear()
        return ready

    def begin(self, status: int, reason: bytes, fields: FieldList, *, keeps_alive: bool) -> None:
        """The head of the final answer; raises ValueError for a coding that nobody can undo."""
        self.keeps_alive = keeps_alive
        if self._request.method != b"HEAD" and status not in (204, 304):
            self._choose_framing(fields)
        self.status = status
        self._write_head(_write_lines(status, reason, fields))

    def begin_switch(self, reason: bytes, fields: FieldList) -> None:
        """101: what follows is passed on as bytes; raises ValueError when nobody asked for it."""
        if not self._request.upgrade:
            raise ValueError("no upgrade was asked for")
        self.status = 101
        self._ready += _write_lines(101, reason, fields)
        upgrade = _find_field(fields, b"upgrade")
        self._ready += (b"Connection: Upgrade\r\nUpgrade: ", upgrade, b"\r\n")
        self._ready += (b"X-Request-Id: ", self._request_id, b"\r\n\r\n")

    def add_interim(self, status: int, reason: bytes, fields: FieldList) -> None:
        """102, 103 and whatever comes; HTTP/1.0 knows none of them."""
        if self._request.version != "1.0":
            self._ready += (*_write_lines(status, reason, fields), b"\r\n")

    def add_page(self, page: Page, *, keeps_alive: bool) -> None:
        """The whole answer, from the edge itself."""
        self.status = page[0]
        self.keeps_alive = keeps_alive
        lines, body = pages.render(page, with_body=self._request.method != b"HEAD")
        self._write_head(lines)
        self.add(body)
        self.is_complete = True

    def add(self, data: bytes) -> None:
        self.size += len(data)
        if self._is_chunked:
            self._ready += (b"%x\r\n" % len(data), data, b"\r\n")
        else:
            self._ready.append(data)

    def end(self) -> None:
        self.is_complete = True
        if self._is_chunked:
            self._ready.append(b"0\r\n\r\n")

    def _choose_framing(self, fields: FieldList) -> None:
        """An answer without a length is chunked for the client, or ends with its connection."""
        coding = _find_field(fields, b"transfer-encoding").lower()
        if coding not in (b"", b"chunked"):
            raise ValueError(coding)
        if not coding and _find_field(fields, b"content-length"):
            return
        self.ends_with_link = not coding
        self._is_chunked = self._request.version != "1.0"
        self.keeps_alive = self.keeps_alive and self._is_chunked

    def _write_head(self, lines: list[bytes]) -> None:
        self._ready += lines
        self._ready += (b"X-Request-Id: ", self._request_id, b"\r\n")
        if self._is_chunked:
            self._ready.append(b"Transfer-Encoding: chunked\r\n")
        if not self.keeps_alive:
            self._ready.append(b"Connection: close\r\n")
        elif self._request.version == "1.0":
            self._ready.append(b"Connection: keep-alive\r\n")
        self._ready.append(b"\r\n")


def _write_lines(status: int, reason: bytes, fields: FieldList) -> list[bytes]:
    return [b"HTTP/1.1 %d %b\r\n" % (status, reason), *write_fields(fields, DROPPED_OF_RESPONSE)]


def _find_field(fields: FieldList, wanted: bytes) -> bytes:
    """The first field of this lower-case name; empty without one."""
    return next((value for name, value in fields if name.lower() == wanted), b"")
