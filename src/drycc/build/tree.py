"""A bounded look at the tree of a pushed commit: sizes from object headers, never a big blob in memory.

Blocks: for a worker thread, not for the event loop.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

import pygit2
from pygit2.enums import FileMode

from drycc.errors import PushRejected

DEEPEST = 64
MOST_ENTRIES = 200_000
LARGEST_TREE = 32 * 1024 * 1024  # bytes of one directory's own object
LARGEST_BLOB = 1024 * 1024  # bytes that we read of any file
LONGEST_TARGET = 4096
MOST_HOPS = 40  # as many links as the system follows


@dataclass(slots=True)
class Tree:
    """What a commit contains, as far as anybody needs it before a build."""

    repository: pygit2.Repository
    root: Mapping[str, pygit2.Object] = field(default_factory=dict)
    size: int = 0
    links: dict[str, str] = field(default_factory=dict)  # path → target
    submodules: list[str] = field(default_factory=list)
    one_down: list[str] = field(default_factory=list)  # "backend/pyproject.toml"

    def read(self, name: str) -> bytes | None:
        """The content of a file at the root; None when there is no such file."""
        entry = self.root.get(name)
        if entry is None or entry.filemode not in (FileMode.BLOB, FileMode.BLOB_EXECUTABLE):
            return None
        _, size = self.repository.odb.read_header(entry.id)
        if size > LARGEST_BLOB:
            raise PushRejected(f"{name}: {size} bytes; it may have at most {LARGEST_BLOB}")
        return _content(self.repository, entry)

    def leaving(self) -> Iterator[str]:
        """Links that lead out of the tree, also by way of other links."""
        return (path for path in self.links if _leaves(path, self.links))


def read_tree(repository: pygit2.Repository, sha: str, limit: int) -> Tree:
    """Walk the commit's tree; raises `PushRejected` when it is no commit or larger than we take."""
    if repository.odb.read_header(pygit2.Oid(hex=sha))[0] != pygit2.enums.ObjectType.COMMIT:
        raise PushRejected("this is no commit; push a branch that points at one")
    top = repository[sha].peel(pygit2.Commit).tree_id
    tree = Tree(repository, {_name(entry): entry for entry in _entries(repository, top)})
    count = 0
    waiting = [("", top, 1)]
    while waiting:
        prefix, id, depth = waiting.pop()
        for entry in _entries(repository, id):
            count += 1
            path = prefix + _name(entry)
            if entry.filemode == FileMode.TREE:
                waiting.append((f"{path}/", entry.id, depth + 1))
            _note(tree, path, entry, depth)
            _check(tree, count, depth, limit)
    return tree


def _entries(repository: pygit2.Repository, id: pygit2.Oid) -> Iterator[pygit2.Object]:
    if repository.odb.read_header(id)[1] > LARGEST_TREE:
        raise PushRejected(f"a directory of this commit is larger than we take ({MOST_ENTRIES} files in all)")
    return iter(repository[id].peel(pygit2.Tree))


def _note(tree: Tree, path: str, entry: pygit2.Object, depth: int) -> None:
    if depth == 2:
        tree.one_down.append(path)
    if entry.filemode == FileMode.COMMIT:
        tree.submodules.append(path)
    elif entry.filemode != FileMode.TREE:
        _, size = tree.repository.odb.read_header(entry.id)
        tree.size += size
        if entry.filemode == FileMode.LINK:
            if size > LONGEST_TARGET:
                raise PushRejected(f"{show(path)}: the target of this link is longer than a path can be")
            tree.links[path] = _decode(_content(tree.repository, entry))


def _check(tree: Tree, count: int, depth: int, limit: int) -> None:
    if count > MOST_ENTRIES:
        raise PushRejected(f"this commit has more than {MOST_ENTRIES} files and directories")
    if depth > DEEPEST:
        raise PushRejected(f"this commit has directories nested deeper than {DEEPEST}")
    if tree.size > limit:
        raise PushRejected(
            f"the files of this commit are larger than {limit} bytes together; keep large data out of the app"
        )


def _leaves(path: str, links: Mapping[str, str]) -> bool:
    """Follow the link as the system would; a loop ends nowhere and so leaves nothing."""
    done = path.split("/")[:-1]
    todo = _parts(links[path])
    hops = 1
    if todo is None:
        return True
    while todo and hops <= MOST_HOPS:
        part = todo.pop(0)
        if part == "..":
            if not done:
                return True
            done.pop()
            continue
        target = links.get("/".join([*done, part]))
        if target is None:
            done.append(part)
            continue
        hops += 1
        further = _parts(target)
        if further is None:
            return True
        todo = further + todo
    return False


def _parts(target: str) -> list[str] | None:
    """None for an absolute target."""
    return None if target.startswith("/") else [part for part in target.split("/") if part not in ("", ".")]


def _name(entry: pygit2.Object) -> str:
    return _decode(entry.raw_name or b"")


def _content(repository: pygit2.Repository, entry: pygit2.Object) -> bytes:
    return repository[entry.id].peel(pygit2.Blob).data


def _decode(text: bytes) -> str:
    return text.decode(errors="surrogateescape")


def show(path: str) -> str:
    """A path as a terminal can print it."""
    return path.encode(errors="surrogateescape").decode(errors="replace")
