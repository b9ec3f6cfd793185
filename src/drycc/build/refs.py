"""Which commit of a push is deployed, and what is said about the references that are not."""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from drycc.errors import PushRejected

BRANCHES = "refs/heads/"
PREFERRED = ("refs/heads/main", "refs/heads/master")
OPTIONS = ("keep",)  # `git push -o keep`: the build goes on when the pusher goes away
NOTHING = "0" * 40
MOST_REFS = 1000  # that one push may name

_branch = re.compile(rf"{BRANCHES}(?!-)(?!HEAD\Z)\S+")


@dataclass(frozen=True, slots=True)
class Update:
    """One reference that a push wants to create, move or delete."""

    old: str
    new: str
    ref: str

    @property
    def is_branch(self) -> bool:
        return _branch.fullmatch(self.ref) is not None

    @property
    def name(self) -> str:
        """As a person writes it."""
        return self.ref.removeprefix(BRANCHES)


@dataclass(frozen=True, slots=True)
class Choice:
    """The commit to deploy, and a sentence for each reference that is not deployed."""

    sha: str
    branch: str
    others: Sequence[str]


def parse_update(line: bytes) -> Update:
    old, new, ref = line.rstrip(b"\n").split(b" ", 2)
    return Update(old.decode(), new.decode(), ref.decode(errors="replace"))


def choose(updates: Sequence[Update]) -> Choice:
    """main, else master, else the only branch. Raises `PushRejected`, a line for each reference."""
    if len(updates) > MOST_REFS:
        raise PushRejected(f"more than {MOST_REFS} references in one push; push the branch to deploy alone")
    if deleted := [update for update in updates if update.new == NOTHING]:
        raise PushRejected("\n".join(f"{update.name}: {_DELETION}" for update in deleted))
    branches = {update.ref: update for update in updates if update.is_branch}
    chosen = next((branches[ref] for ref in PREFERRED if ref in branches), None)
    if chosen is None and len(branches) == 1:
        (chosen,) = branches.values()
    if chosen is None:
        raise PushRejected("\n".join(_refusals(updates)))
    others = tuple(_skipped(update, chosen) for update in updates if update is not chosen)
    return Choice(chosen.new, chosen.name, others)


def check_options(options: Iterable[str]) -> None:
    """Raises `PushRejected` for an option that we don't know; its value is not repeated."""
    for option in options:
        if option not in OPTIONS:
            name = option.split("=", 1)[0][:40]
            raise PushRejected(f"there is no push option {name!r}; known ones: {', '.join(OPTIONS)}")


def _refusals(updates: Sequence[Update]) -> list[str]:
    return [f"{update.name}: {_MANY if update.is_branch else _why_not(update)}" for update in updates]


def _skipped(update: Update, chosen: Update) -> str:
    if update.is_branch:
        return f"{update.name}: not deployed, {chosen.name} is; push it alone to deploy it"
    return f"{update.name}: not deployed; {_why_not(update)}"


def _why_not(update: Update) -> str:
    if update.ref.startswith(BRANCHES):
        return "this name cannot be deployed; give it another: git push <remote> HEAD:refs/heads/main"
    if update.ref.startswith("refs/tags/"):
        tag = update.ref.removeprefix("refs/tags/")
        return f"a tag is not deployed; push its commit: git push <remote> '{tag}^{{commit}}:refs/heads/main'"
    return "only branches are deployed; push the commit to one: git push <remote> HEAD:refs/heads/main"


_DELETION = "nothing can be deleted here; to remove the app use drycc apps destroy"
_MANY = (
    "one push deploys one branch; push it alone, or name it main: git push <remote> <branch>:refs/heads/main"
)
