"""What a pushed commit asks for: its Procfile and its stack, or why it cannot be built, before any work.

Blocks: for a worker thread, not for the event loop.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from drycc.build.repository import Incoming, open_incoming
from drycc.build.tree import Tree, read_tree, show
from drycc.core import procfile
from drycc.errors import Invalid, PushRejected

STACK = "buildpack"  # the contract's word for an image that we make from the tree
PYTHON = ("requirements.txt", "pyproject.toml")
NOT_YET = {
    "package.json": "Node.js",
    "go.mod": "Go",
    "Gemfile": "Ruby",
    "composer.json": "PHP",
    "pom.xml": "Java",
    "build.gradle": "Java",
    "build.gradle.kts": "Java",
    "Cargo.toml": "Rust",
    "mix.exs": "Elixir",
    "Pipfile": "Python with a Pipfile",
    "setup.py": "Python with a setup.py",
    "project.toml": "Cloud Native Buildpacks",
}
KNOWN = ("Dockerfile", "Procfile", *PYTHON, *NOT_YET)
MOST_NAMES = 20  # listed in a refusal


@dataclass(frozen=True, slots=True)
class Spec:
    """What to build. `notes` are sentences for the pusher."""

    stack: str
    procfile: dict[str, str]
    detected: str
    notes: Sequence[str] = ()


def read_spec(incoming: Incoming, sha: str, tree_limit: int) -> Spec:
    """Raises `PushRejected`; its text names everything that is wrong, one thing a line."""
    tree = read_tree(open_incoming(incoming), sha, tree_limit)
    faults = [*_find_submodules(tree), *_find_links(tree), *_find_unsupported(tree)]
    types: dict[str, str] = {}
    text = tree.read("Procfile")
    try:
        types = procfile.parse(text) if text is not None else {}
    except Invalid as refusal:
        faults.append(str(refusal))
    if text is None and not faults:
        faults = _explain_missing(tree)
    if faults:
        raise PushRejected("\n".join(faults))
    is_python = any(name in tree.root for name in PYTHON)
    return Spec(STACK, types, "Python" if is_python else "Procfile", tuple(_find_notes(tree)))


def _find_submodules(tree: Tree) -> list[str]:
    modules = (tree.read(".gitmodules") or b"").decode(errors="replace")
    faults = []
    for path in tree.submodules[:MOST_NAMES]:
        has_url = f"path = {path}\n" in modules
        what = "a submodule; submodules are not fetched here" if has_url else "a submodule without a URL"
        faults.append(
            f"{show(path)}: this is {what}, so none of its files is in the commit. To add them:"
            f" git rm --cached {show(path)}, delete {show(path)}/.git, git add {show(path)}, commit"
        )
    return faults


def _find_links(tree: Tree) -> list[str]:
    return [
        f"{show(path)}: this link leads out of the app ({show(tree.links[path])}); put the file in its place"
        for path in list(tree.leaving())[:MOST_NAMES]
    ]


def _find_unsupported(tree: Tree) -> list[str]:
    faults = []
    if "Dockerfile" in tree.root:
        faults.append(
            "Dockerfile: building from a Dockerfile is not supported on this cluster yet;"
            " remove it and name the commands in a Procfile"
        )
    if ".drycc" in tree.root:
        faults.append(
            ".drycc: pipelines are not supported on this cluster yet;"
            " remove the directory and name the commands in a Procfile"
        )
    return faults


def _find_notes(tree: Tree) -> list[str]:
    if any(name in tree.root for name in PYTHON):
        return []
    return [
        f"{name} found: nothing is installed for {NOT_YET[name]} on this cluster yet, the tree runs as it is"
        for name in NOT_YET
        if name in tree.root
    ]


def _explain_missing(tree: Tree) -> list[str]:
    """There is no Procfile: what is there, and what to write."""
    if "procfile" in map(str.lower, tree.root):
        (name, *_) = [name for name in tree.root if name.lower() == "procfile"]
        return [f"{name}: the file must be called Procfile, with a capital P: git mv {name} Procfile"]
    for name in PYTHON:
        if name in tree.root:
            return [f"{name} found, but no Procfile says what to run; {_EXAMPLE}"]
    for name, language in NOT_YET.items():
        if name in tree.root:
            return [
                f"{name} found: {language} is not supported on this cluster yet;"
                f" an app that runs as it is needs only a Procfile; {_EXAMPLE}"
            ]
    return [*_explain_nothing(tree), *_find_near_misses(tree)]


def _explain_nothing(tree: Tree) -> list[str]:
    names = sorted(map(show, tree.root))
    shown = ", ".join(names[:MOST_NAMES]) + (", …" if len(names) > MOST_NAMES else "")
    return [
        "nothing here says how to run this app",
        f"looked for at the root: {', '.join(KNOWN[:4])}",
        f"found at the root: {shown or 'no file at all'}",
        _EXAMPLE,
    ]


def _find_near_misses(tree: Tree) -> list[str]:
    hints = [
        f"{name}: the file must be called Dockerfile, with a capital D"
        for name in tree.root
        if name.lower() == "dockerfile"
    ]
    near = [show(path) for path in tree.one_down if path.split("/")[1] in KNOWN]
    if near:
        hints.append(
            f"found one level down: {', '.join(sorted(near)[:MOST_NAMES])}; the root of what is pushed"
            ' must be the app: git push <remote> "$(git subtree split --prefix=<directory>)":refs/heads/main'
        )
    return hints


_EXAMPLE = 'write a file Procfile at the root, a line for each process, as in "web: python3 app.py"'
