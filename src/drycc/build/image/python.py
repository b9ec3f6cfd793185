"""A Python app's interpreter and virtual environment."""

import hashlib
import importlib.util
import re
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from drycc.build.image.disk import read_complete, seal
from drycc.errors import BuildFailed, Unavailable
from drycc.kit.disk import NO_SPACE, has_space
from drycc.kit.files import delete_tree

Say = Callable[[str], None]
PLACES = ("/usr/local/bin", "/usr/bin")
MINORS = range(8, 30)
QUERY = (
    "import sys, sysconfig; print(sys.version.split()[0], sysconfig.get_platform(), sys.implementation.name)"
)

_runtime = re.compile(r"python-(\d+(?:\.\d+){0,2})")
_pinned = re.compile(r"[A-Za-z0-9][\w.-]*(?:\[[\w,. -]*\])?\s*===?\s*[^\s*;]+\s*(?:;.*|--hash=.*)?")


@dataclass(frozen=True, slots=True)
class Interpreter:
    path: str
    version: str
    platform: str  # what a compiled package depends on


@dataclass(frozen=True, slots=True)
class Wanted:
    """What pip is given. `lock` is the text that decides all of it, when something does."""

    name: str
    arguments: Sequence[str]
    lock: bytes | None


def install(tree: Path, venvs: Path, python: str, build: str, say: Say) -> Path | None:
    """Make, or find again, the app's virtual environment; None when the app is not Python's."""
    wanted = find_wanted(tree)
    if wanted is None:
        return None
    interpreter = choose_interpreter(tree, python)
    say(f"-----> Python {interpreter.version}")
    if wanted.lock is None:
        say(f" !     {wanted.name}: not all versions are pinned, so the next build may get others")
    venv = venvs / _name(wanted, interpreter, build)
    if read_complete(venv):
        say(f"-----> Using the dependencies installed before: {wanted.name} is unchanged")
        return venv
    say(f"-----> Installing dependencies from {wanted.name}")
    _create(venv, interpreter, tree, wanted)
    return venv


def find_wanted(tree: Path) -> Wanted | None:
    """requirements.txt, else pyproject.toml: the package if it has a build system, else the dependencies."""
    requirements, project = tree / "requirements.txt", tree / "pyproject.toml"
    if requirements.is_file():
        text = requirements.read_bytes()
        return Wanted("requirements.txt", ("-r", "requirements.txt"), text if is_pinned(text) else None)
    if not project.is_file():
        return None
    try:
        read = tomllib.loads(project.read_text())
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise BuildFailed(f"pyproject.toml: {error}") from error
    if "build-system" in read:
        return Wanted("pyproject.toml", (".",), None)
    return Wanted("pyproject.toml", read.get("project", {}).get("dependencies", []), None)


def is_pinned(text: bytes) -> bool:
    """Whether every line of a requirements.txt names one version."""
    joined = re.sub(r"\\\r?\n", " ", text.decode(errors="replace"))
    lines = (re.sub(r"(^|\s)#.*", "", line).strip() for line in joined.splitlines())
    return all(_pinned.fullmatch(line) for line in lines if line)


def choose_interpreter(tree: Path, python: str) -> Interpreter:
    """The first that runtime.txt allows; the platform's own one when there is no such file."""
    file = tree / "runtime.txt"
    asked = read_runtime(file.read_bytes()) if file.is_file() else ""
    found = []
    for path in _candidates(python):
        interpreter = _query(path)
        if interpreter and f"{interpreter.version}.".startswith(f"{asked}." if asked else ""):
            return interpreter
        found += [interpreter.version] if interpreter else []
    there = ", ".join(dict.fromkeys(found)) or "none"
    if not asked:
        raise BuildFailed(f"there is no Python at {python}; set DRYCC_PYTHON")
    raise BuildFailed(
        f"runtime.txt asks for Python {asked}, there is {there}; ask for one of these or remove it"
    )


def read_runtime(text: bytes) -> str:
    """The version in a runtime.txt; raises `BuildFailed`."""
    asked = text.decode(errors="replace").strip()
    match = _runtime.fullmatch(asked)
    if match is None:
        raise BuildFailed(f"runtime.txt: {asked[:60]!r} names no version; write it as in python-3.11")
    return match[1]


def _candidates(python: str) -> Iterator[str]:
    yield python
    for minor in MINORS:
        if path := shutil.which(f"python3.{minor}", path=":".join(PLACES)):
            yield path


def _query(path: str) -> Interpreter | None:
    try:
        answer = subprocess.run([path, "-I", "-c", QUERY], capture_output=True, text=True, timeout=60)
    except OSError:
        return None
    words = answer.stdout.split(maxsplit=1)
    return (
        Interpreter(path, words[0], words[1].strip()) if answer.returncode == 0 and len(words) == 2 else None
    )


def _name(wanted: Wanted, interpreter: Interpreter, build: str) -> str:
    """By content when a lock decides it, else by the build: then nobody else uses it."""
    if wanted.lock is None:
        return f"build-{build}"
    parts = (
        wanted.lock,
        interpreter.version.encode(),
        interpreter.platform.encode(),
        interpreter.path.encode(),
    )
    return hashlib.sha256(b"\0".join(parts)).hexdigest()[:16]


def _create(venv: Path, interpreter: Interpreter, tree: Path, wanted: Wanted) -> None:
    delete_tree(venv)
    try:
        _fill(venv, interpreter, tree, wanted)
    except (BuildFailed, Unavailable, OSError):
        delete_tree(venv)
        raise


def _fill(venv: Path, interpreter: Interpreter, tree: Path, wanted: Wanted) -> None:
    _run(tree, interpreter.path, "-m", "venv", "--without-pip", str(venv))
    inside = str(venv / "bin" / "python")
    if wanted.arguments:
        _run(tree, *_pip(), "--python", inside, "install", *OPTIONS, *wanted.arguments)
    # Files may be no Python of this version: templates, tests. What matters is compiled.
    compiling = (inside, "-m", "compileall", "-q", "--invalidation-mode", "unchecked-hash", str(venv / "lib"))
    subprocess.run(compiling, stdout=subprocess.DEVNULL, check=False)
    seal(venv, {"python": interpreter.version, "from": wanted.name})


OPTIONS = (
    "--no-compile",
    "--no-cache-dir",
    "--no-input",
    "--disable-pip-version-check",
    "--no-warn-script-location",
    "--progress-bar=off",
    "--root-user-action=ignore",
)


def _pip() -> tuple[str, ...]:
    """Our own pip works on the app's environment: making one there takes seconds."""
    if importlib.util.find_spec("pip") is None:
        raise BuildFailed("there is no pip beside dryccd; install it into the same environment")
    return sys.executable, "-m", "pip"


def _run(tree: Path, *argv: str) -> None:
    """Run it in the tree; what it prints goes where our own lines go."""
    status = subprocess.run(argv, cwd=tree, stdin=subprocess.DEVNULL, stderr=subprocess.STDOUT).returncode
    if status and not has_space(tree):
        raise BuildFailed(NO_SPACE)
    if status:
        raise BuildFailed(f"{Path(argv[0]).name} {argv[2]} ended with status {status}; its output is above")
