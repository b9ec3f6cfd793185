"""The head of one request: what the edge must know of it, and how it goes on to a pod."""

import re

from drycc.backends.cluster.local.edge import headers, pages
from drycc.backends.cluster.local.edge.pages import Refused

HEAD_LIMIT = 32 * 1024  # bytes

_HOST = re.compile(rb"([A-Za-z0-9._-]+|\[[0-9A-Fa-f:.]+\])(?::[0-9]*)?")
_ABSOLUTE = re.compile(rb"http://([^/?#@]*)((?:[/?#].*)?)", re.IGNORECASE)
_SAFE = frozenset({b"GET", b"HEAD", b"OPTIONS"})


class Request:
    """Filled by the parser's callbacks; `check` completes it when the head is there."""

    def __init__(self) -> None:
        self.method = b""
        self.target = b""
        self.version = "1.1"
        self.fields: list[tuple[bytes, bytes]] = []
        self.size = 0  # of the head, in bytes
        self.keeps_alive = True
        self.host_field = b""
        self.host = ""  # as the routing table has it
        self.length = 0  # of the body, when not chunked
        self.is_chunked = False
        self.upgrade = b""
        self.waits_for_continue = False
        self._has_host = False

    @property
    def has_body(self) -> bool:
        return self.is_chunked or self.length > 0

    @property
    def is_repeatable(self) -> bool:
        """May be sent again when a reused connection was closed without an answer (RFC 9110, 9.2.2)."""
        return self.method in _SAFE and not self.has_body

    def check(self, *, wants_upgrade: bool) -> None:
        """Read the fields that the edge acts on; raises `Refused`."""
        if self.size > HEAD_LIMIT:
            raise Refused(pages.TOO_LARGE)
        if self.version not in ("1.1", "1.0"):
            raise Refused(pages.BAD_VERSION)
        if self.method == b"CONNECT":
            raise Refused(pages.NO_CONNECT)
        for name, value in self.fields:
            if reader := _READERS.get(name.lower()):
                reader(self, value)
        self._check_target()
        self._check_host()
        if not wants_upgrade or self.has_body or self.version == "1.0":
            self.upgrade = b""

    def write_head(self, fixed: bytes, peer: str, request_id: bytes) -> bytes:
        """The head for the pod, always HTTP/1.1; `fixed` are the connection's own lines."""
        lines = [self.method, b" ", self.target, b" HTTP/1.1\r\nHost: ", self.host_field, b"\r\n"]
        lines += headers.write_fields(self.fields, headers.DROPPED_OF_REQUEST, headers.OURS_BY_PREFIX)
        lines += (fixed, headers.write_origin(peer, self.host_field, request_id))
        if self.is_chunked:
            lines.append(b"Transfer-Encoding: chunked\r\n")
        if self.waits_for_continue:
            lines.append(b"Expect: 100-continue\r\n")
        if self.upgrade:
            lines += (b"Connection: Upgrade\r\nUpgrade: ", self.upgrade, b"\r\n")
        lines.append(b"\r\n")
        return b"".join(lines)

    def write_framing(self) -> bytes:
        """A head that tells a parser of nothing but the body that follows."""
        framing = b"Transfer-Encoding: chunked" if self.is_chunked else b"Content-Length: %d" % self.length
        return b"POST / HTTP/1.1\r\n" + framing + b"\r\n\r\n"

    def _check_target(self) -> None:
        """An absolute target is turned into a path and its authority wins over Host (RFC 9112, 3.2.2)."""
        if self.target.startswith(b"/") or (self.target == b"*" and self.method == b"OPTIONS"):
            return
        absolute = _ABSOLUTE.fullmatch(self.target)
        if absolute is None:
            raise Refused(pages.BAD_TARGET)
        self.host_field, rest = absolute.groups()
        self.target = rest if rest.startswith(b"/") else b"/" + rest

    def _check_host(self) -> None:
        match = _HOST.fullmatch(self.host_field)
        if match is not None:
            self.host = match[1].decode().lower().removesuffix(".")
        elif self.host_field or self.version == "1.1":
            raise Refused(pages.NO_HOST)

    def _read_host(self, value: bytes) -> None:
        if self._has_host:
            raise Refused(pages.NO_HOST)
        self._has_host = True
        self.host_field = value.strip()

    def _read_length(self, value: bytes) -> None:
        self.length = int(value)  # the parser has refused what is no number

    def _read_coding(self, value: bytes) -> None:
        if self.is_chunked or self.version == "1.0" or value.strip().lower() != b"chunked":
            raise Refused(pages.BAD_CODING)
        self.is_chunked = True

    def _read_expect(self, value: bytes) -> None:
        self.waits_for_continue = self.version == "1.1" and value.strip().lower() == b"100-continue"

    def _read_upgrade(self, value: bytes) -> None:
        self.upgrade = value


_READERS = {
    b"host": Request._read_host,
    b"content-length": Request._read_length,
    b"transfer-encoding": Request._read_coding,
    b"expect": Request._read_expect,
    b"upgrade": Request._read_upgrade,
}
