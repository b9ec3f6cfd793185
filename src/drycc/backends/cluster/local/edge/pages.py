"""What the edge itself answers: one sentence of plain text."""

from http import HTTPStatus

Page = tuple[int, str]

NO_APP = (404, "There is no app at this address.")
NO_PROCESS = (503, "This app has no web process running. Its owner can start one: drycc ps scale web=1")
STARTING = (503, "This app is starting. Try again in a moment.")
NO_ANSWER = (502, "This app does not answer. Its log says more: drycc logs")
BROKEN_ANSWER = (502, "This app ended the connection before its answer was complete.")
SILENT = (504, "This app did not say anything for too long.")
BAD_REQUEST = (400, "This request is not valid HTTP.")
NO_HOST = (400, "This request does not name exactly one valid host.")
BAD_TARGET = (400, "The target of this request is neither a path nor an http URL.")
BAD_CODING = (501, "The only transfer coding taken here is chunked, and only from HTTP/1.1 on.")
BAD_VERSION = (505, "Only HTTP/1.0 and HTTP/1.1 are spoken here.")
NO_CONNECT = (405, "CONNECT is not served here.")
TOO_LARGE = (431, "The head of this request is larger than 32 KiB.")
TOO_MANY = (429, "Too many requests were sent ahead on this connection.")
TOO_SLOW = (408, "The head of this request took too long.")


class Refused(Exception):
    """The request is answered by the edge, with this page."""

    def __init__(self, page: Page) -> None:
        super().__init__(page[1])
        self.page = page


def render(page: Page, *, with_body: bool = True) -> tuple[list[bytes], bytes]:
    """Header lines (without those of the connection) and body."""
    body = f"{page[1]}\n".encode()
    lines = [
        b"HTTP/1.1 %d %b\r\n" % (page[0], HTTPStatus(page[0]).phrase.encode()),
        b"Content-Type: text/plain; charset=utf-8\r\nCache-Control: no-store\r\n",
        b"Content-Length: %d\r\n" % len(body),
    ]
    if page[0] == 503:
        lines.append(b"Retry-After: 2\r\n")
    return lines, body if with_body else b""
