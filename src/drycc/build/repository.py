"""The bare repositories on disk: one for each app, and a small one for each push that borrows from it.

A push has a repository of its own, so that it looks empty (any commit may be pushed, any number of
times), two pushes at once never wait for each other's locks, and whatever a dead push left behind
is one directory. Nothing here may run on the event loop.
"""

import os
import shutil
from collections.abc import Collection
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from threading import Lock
from uuid import UUID, uuid4

import pygit2
from pygit2.enums import RepositoryOpenFlag

from drycc.errors import NoSpace
from drycc.kit.disk import NO_SPACE, guarded, has_space

WHOLE = "refs/drycc/commits"  # with all history: what pushers are told that we have
CUT = "refs/drycc/shallow"  # of pushes from shallow clones
LIVE = "live"  # the namespace that clones see
_LIVE_HEAD = f"refs/namespaces/{LIVE}/HEAD"
_LIVE_MAIN = f"refs/namespaces/{LIVE}/refs/heads/main"
HEAD = "ref: refs/heads/main\n"

_CONFIG = """\
[core]
\trepositoryformatversion = 0
\tfilemode = true
\tbare = true
\tbigFileThreshold = 1m
[gc]
\tauto = 0
"""
# `unpackLimit`: few but large objects would be deflated anew one by one (3.5 times slower).
_PUSH_CONFIG = f"""\
[core]
\talternateRefsPrefixes = {WHOLE}
[receive]
\tfsckObjects = true
\tunpackLimit = 1
\tmaxInputSize = {{limit}}
\tshallowUpdate = true
\tadvertisePushOptions = true
\tautogc = false
"""
_lock = Lock()  # references and shallow boundaries of all repositories; held for milliseconds


@dataclass(frozen=True, slots=True)
class Incoming:
    """What one push brought, while git still holds it back."""

    repository: Path  # the push's own
    quarantine: Path  # its objects
    shallow: Collection[str] = ()  # commits whose parents the pusher does not have


class Repositories:
    """All of them, below one directory; an app's is named by its uuid, since names are given again."""

    def __init__(self, root: Path, push_limit: int) -> None:
        self.root = root
        self._push_config = _CONFIG + _PUSH_CONFIG.format(limit=push_limit)

    def open(self, app: UUID) -> Path:
        """The app's repository, made when it is not there yet."""
        path = self.root / f"{app}.git"
        if not (path / "HEAD").exists():
            with guarded():
                _lay_out(path, _CONFIG, "pushes")
                _begin(path)
        return path

    def open_push(self, app: UUID) -> Path:
        """A new repository for one push, with the app's objects behind it; `close_push` removes it."""
        kept = self.open(app)
        path = kept / "pushes" / uuid4().hex
        try:
            with guarded():
                _lay_out(path, self._push_config)
                (path / "objects/info/alternates").write_text(f"{kept}/objects\n")
                _begin(path)
        except BaseException:
            close_push(path)
            raise
        return path

    def list(self) -> set[UUID]:
        """Apps that have a repository."""
        return {UUID(path.stem) for path in self.root.glob("*.git")}

    def remove(self, apps: Collection[UUID]) -> None:
        for app in apps:
            shutil.rmtree(self.root / f"{app}.git", ignore_errors=True)

    def sweep_pushes(self) -> None:
        """Remove what pushes of an earlier process left; call it before the first push."""
        for path in self.root.glob("*.git/pushes/*"):
            shutil.rmtree(path, ignore_errors=True)


def close_push(path: Path) -> None:
    shutil.rmtree(path, ignore_errors=True)


def has_refs(path: Path) -> bool:
    """Whether git moved a reference in this push's repository."""
    return bool(_open(path).references.objects)


def open_incoming(incoming: Incoming) -> pygit2.Repository:
    """A view of the objects that a push brought and of those that the app has."""
    repository = _open(incoming.repository)
    repository.odb.add_disk_alternate(str(incoming.quarantine))
    return repository


def keep(incoming: Incoming, app: Path, sha: str) -> None:
    """Make the commit the app's for good, whatever becomes of the push; may be repeated.

    Raises `NoSpace` on a full disk, and then leaves nothing.
    """
    linked: list[Path] = []
    with _lock, guarded():
        try:
            _link_packs(incoming, app, linked)
            repository = _open(app)
            _mark_ends(repository, incoming.shallow)
            _refer(repository, f"{CUT if incoming.shallow else WHOLE}/{sha}", sha)
        except BaseException:
            for file in reversed(linked):
                file.unlink()
            raise


def publish(app: Path, sha: str | None) -> None:
    """Make a clone give this commit, or an empty repository when there is none."""
    with _lock:
        repository = _open(app)
        if sha is not None and sha in repository:
            repository.references.create(_LIVE_MAIN, sha, force=True)
            repository.references.create(_LIVE_HEAD, _LIVE_MAIN, force=True)
            return
        for name in {_LIVE_HEAD, _LIVE_MAIN}.intersection(repository.references):
            repository.references.delete(name)


def _open(path: Path) -> pygit2.Repository:
    return pygit2.Repository(str(path), RepositoryOpenFlag.NO_SEARCH | RepositoryOpenFlag.BARE)


def _lay_out(path: Path, config: str, *directories: str) -> None:
    """Write an empty repository but for its HEAD, which is what makes a directory one."""
    for directory in ("objects/info", "objects/pack", "refs/heads", *directories):
        (path / directory).mkdir(parents=True, exist_ok=True)
    (path / "config").write_text(config)


def _begin(path: Path) -> None:
    """Write HEAD, whole or not at all: it says that the rest is there."""
    part = path / "HEAD.part"
    part.write_text(HEAD)
    part.replace(path / "HEAD")


def _link_packs(incoming: Incoming, app: Path, linked: list[Path]) -> None:
    """Adds what it makes to `linked`. A pack is named by its content: one that is there is the same."""
    for kind in ("*.pack", "*.rev", "*.idx"):  # the index last: with it git sees the pack
        for file in (incoming.quarantine / "pack").glob(kind):
            target = app / "objects" / "pack" / file.name
            with suppress(FileExistsError):
                os.link(file, target)
                linked.append(target)


def _refer(repository: pygit2.Repository, name: str, sha: str) -> None:
    try:
        repository.references.create(name, sha, force=True)
    except pygit2.GitError as error:
        raise NoSpace(NO_SPACE) if not has_space(Path(repository.path)) else error from error


def _mark_ends(repository: pygit2.Repository, commits: Collection[str]) -> None:
    """Record where history ends: at commits whose parents never came, also not with a later push."""
    file = Path(repository.path) / "shallow"
    known = set(file.read_text().split()) if file.exists() else set()
    ends = {sha for sha in known.union(commits) if sha in repository and _lacks_parent(repository, sha)}
    if ends != known:
        part = file.with_name("shallow.part")
        part.write_text("".join(f"{sha}\n" for sha in sorted(ends)))
        part.replace(file)


def _lacks_parent(repository: pygit2.Repository, sha: str) -> bool:
    commit = repository[sha]
    return isinstance(commit, pygit2.Commit) and any(id not in repository for id in commit.parent_ids)
