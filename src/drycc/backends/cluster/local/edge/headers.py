"""Which header fields pass through the edge, and those that it writes itself."""

FieldList = list[tuple[bytes, bytes]]

# RFC 9110, 7.6.1, and those that older software treats so. Transfer-Encoding is written anew for each
# side; trailer fields are dropped on both, so nothing may announce them.
HOP_BY_HOP = frozenset({
    b"connection", b"keep-alive", b"proxy-authenticate", b"proxy-authorization", b"proxy-connection",
    b"te", b"trailer", b"transfer-encoding", b"upgrade",
})  # fmt: skip

# What the edge says about a request; a client's word on it is never passed on. `Proxy` would become
# HTTP_PROXY in the environment of a CGI program.
OURS = frozenset({
    b"forwarded", b"x-real-ip", b"x-request-id", b"proxy",
    b"cf-connecting-ip", b"client-ip", b"fastly-client-ip", b"fly-client-ip", b"true-client-ip",
    b"x-client-ip", b"x-cluster-client-ip", b"x-envoy-external-address", b"x-original-forwarded-for",
    b"x-originating-ip", b"x-remote-addr", b"x-remote-ip",
})  # fmt: skip
OURS_BY_PREFIX = (b"x-forwarded-",)

NAMES_NONE = (b"keep-alive", b"close", b"upgrade")  # the usual `Connection` fields

# A `Connection` field that names one of these removes nothing.
KEPT = frozenset({b"host", b"content-length", b"content-type", b"authorization", b"cookie"})

DROPPED_OF_REQUEST = HOP_BY_HOP | OURS | {b"host", b"expect"}
DROPPED_OF_RESPONSE = HOP_BY_HOP | {b"x-request-id"}


def write_fields(
    fields: FieldList, dropped: frozenset[bytes], prefixes: tuple[bytes, ...] = ()
) -> list[bytes]:
    """Lines of the fields that pass, byte for byte; also without those that `Connection` names.

    An underscore counts as a hyphen: many apps see both as one name, so it would pass a forgery.
    """
    lines: list[bytes] = []
    named = b""
    for name, value in fields:
        lower = name.lower()
        if b"_" in lower:
            lower = lower.replace(b"_", b"-")
        if lower not in dropped and not lower.startswith(prefixes):
            lines += (name, b": ", value, b"\r\n")
        elif lower == b"connection" and value.lower() not in NAMES_NONE:
            named += b"," + value.lower()
    if named:
        others = {token.strip() for token in named.split(b",")} - KEPT - dropped
        return write_fields(_without_connection(fields), dropped | others, prefixes)
    return lines


def _without_connection(fields: FieldList) -> FieldList:
    return [(name, value) for name, value in fields if name.lower() != b"connection"]


def write_forwarded(peer: str, port: int) -> bytes:
    """The lines that are the same for all requests of a connection."""
    return (
        f"X-Forwarded-For: {peer}\r\nX-Real-IP: {peer}\r\n"
        f"X-Forwarded-Proto: http\r\nX-Forwarded-Port: {port}\r\n"
    ).encode()


def write_origin(peer: str, host: bytes, request_id: bytes) -> bytes:
    """The lines that differ from request to request; `host` is a valid name with or without port."""
    node = f'"[{peer}]"' if ":" in peer else peer
    return b'X-Forwarded-Host: %b\r\nForwarded: for=%b;host="%b";proto=http\r\nX-Request-Id: %b\r\n' % (
        host,
        node.encode(),
        host,
        request_id,
    )
