"""Small blocks joined to large ones: an app that prints a line now and then fills segments with blocks of
one line, which compress badly."""

from collections.abc import Iterable, Iterator, Sequence

from drycc.backends.logstore.blocks import IS_ONLY, Block, pack

BLOCK_LINES = 1000
PAYLOAD_BYTES = 256 * 1024


def join_blocks(blocks: Iterable[Block]) -> Iterator[Block]:
    """The same lines with the same numbers in fewer blocks."""
    group: list[Block] = []
    count = size = 0
    for block in blocks:
        is_next = bool(group) and block.first == group[-1].end
        if group and not (is_next and count + block.count <= BLOCK_LINES and size < PAYLOAD_BYTES):
            yield _join(group)
            group, count, size = [], 0, 0
        group.append(block)
        count += block.count
        size += len(block.payload)
    if group:
        yield _join(group)


def _join(group: Sequence[Block]) -> Block:
    last = group[-1]
    if len(group) == 1:
        return last
    payload = pack([line for block in group for line in block.lines()])
    count = last.end - group[0].first
    if all(block.flags & IS_ONLY and block.pod == last.pod for block in group):
        return Block(group[0].first, count, payload, last.pod, last.offset, last.flags)
    return Block(group[0].first, count, payload)
