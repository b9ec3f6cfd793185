"""The form of log lines on disk and in memory: blocks of compressed lines, each framed with its length
and a checksum, so that a block is there whole or not at all."""

import json
import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from zlib import crc32

import zstandard

from drycc.backends.logstore.base import Filter, Line

LENGTHS = struct.Struct("<II")  # payload, checksum of all that follows
HEADER = struct.Struct("<QIQBH")  # first, count, offset, flags, bytes of the pod's name
PAYLOAD_BYTES = 64 * 1024 * 1024  # no block of ours is larger
IS_HEAD, IS_LAST, IS_ONLY = 1, 2, 4
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
MICROSECOND = timedelta(microseconds=1)


@dataclass(frozen=True, slots=True)
class Block:
    """Lines that were appended together; lines of one app are numbered without gaps."""

    first: int  # number of its first line
    count: int
    payload: bytes
    pod: str = ""  # whose file it reaches into
    offset: int = 0  # how far
    flags: int = 0

    @property
    def end(self) -> int:
        return self.first + self.count

    @property
    def is_head(self) -> bool:
        """It has no lines: it begins a segment, and says how far each pod's file was read."""
        return bool(self.flags & IS_HEAD)

    @property
    def is_last(self) -> bool:
        return bool(self.flags & IS_LAST)

    def may_have(self, pod: str) -> bool:
        """False when no line can be of the pod."""
        return not pod or pod == self.pod or not self.flags & IS_ONLY

    def numbers(self, only: Filter) -> Sequence[int]:
        """The numbers of its lines that the filter takes."""
        if not self.may_have(only.pod):
            return ()
        if only == Filter(only.pod) and self.flags & IS_ONLY:
            return range(self.first, self.end)
        return [number for number, line in enumerate(self.lines(), self.first) if only.takes(line)]

    def lines(self) -> Sequence[Line]:
        return unpack(self.payload) if self.count else ()


def encode(block: Block) -> bytes:
    pod = block.pod.encode()
    header = HEADER.pack(block.first, block.count, block.offset, block.flags, len(pod))
    body = header + pod + block.payload
    return LENGTHS.pack(len(block.payload), crc32(body)) + body


def decode(data: bytes) -> Iterator[tuple[Block, int]]:
    """The whole blocks at the beginning of `data`, each with the position where it ends."""
    position = 0
    while found := _decode_one(data, position):
        yield found
        position = found[1]


def _decode_one(data: bytes, start: int) -> tuple[Block, int] | None:
    body = start + LENGTHS.size
    name = body + HEADER.size
    if name > len(data):
        return None
    size, checksum = LENGTHS.unpack_from(data, start)
    first, count, offset, flags, name_size = HEADER.unpack_from(data, body)
    payload = name + name_size
    end = payload + size
    if size > PAYLOAD_BYTES or end > len(data) or crc32(memoryview(data)[body:end]) != checksum:
        return None
    pod = data[name:payload].decode()
    return Block(first, count, data[payload:end], pod, offset, flags), end


def pack(lines: Sequence[Line]) -> bytes:
    """Compress lines; no text has a newline in it."""
    kinds: dict[tuple[str, str, int, str], int] = {}
    which = [
        kinds.setdefault((line.source, line.ptype, line.release, line.pod), len(kinds)) for line in lines
    ]
    times = [(line.at - EPOCH) // MICROSECOND for line in lines]
    since = [time - times[0] for time in times]
    head = json.dumps([list(kinds), which, times[0], since], separators=(",", ":"))
    text = "\n".join([head, *(line.text for line in lines)])
    return compress(text.encode("utf-8", "replace"))


@lru_cache(maxsize=16)  # many followers read the same newest blocks
def unpack(payload: bytes) -> tuple[Line, ...]:
    head, *texts = decompress(payload).decode().split("\n")
    kinds, which, start, since = json.loads(head)
    ats = [EPOCH + timedelta(microseconds=start + time) for time in since]
    return tuple(
        Line(at, kinds[kind][0], text, *kinds[kind][1:])
        for at, kind, text in zip(ats, which, texts, strict=True)
    )


def compress(data: bytes) -> bytes:
    return zstandard.ZstdCompressor(level=1).compress(data)


def decompress(data: bytes) -> bytes:
    return zstandard.ZstdDecompressor().decompress(data)
