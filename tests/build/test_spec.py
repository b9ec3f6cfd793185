"""What is seen in a commit before any build."""

from collections.abc import Mapping
from pathlib import Path

import pygit2
import pytest
from pygit2.enums import FileMode

from drycc.build import tree
from drycc.build.repository import Incoming
from drycc.build.spec import Spec, read_spec
from drycc.errors import PushRejected

MIB = 1024 * 1024
Content = str | bytes | tuple[FileMode, str]
WEB = {"Procfile": "web: ./run\n"}


class Commits:
    """A repository into which commits are written object by object, also such as no checkout would hold."""

    def __init__(self, path: Path) -> None:
        self.repository = pygit2.init_repository(str(path), bare=True)
        self.incoming = Incoming(path, path / "objects")

    def commit(self, files: Mapping[str, Content]) -> str:
        return self.commit_tree(self._tree({path: self._entry(content) for path, content in files.items()}))

    def commit_tree(self, id: pygit2.Oid) -> str:
        who = pygit2.Signature("ann", "ann@example.com", 0, 0)
        return str(self.repository.create_commit(None, who, who, "a change", id, []))

    def _entry(self, content: Content) -> tuple[pygit2.Oid, FileMode]:
        if isinstance(content, tuple):
            mode, target = content
            if mode == FileMode.COMMIT:
                return pygit2.Oid(hex="1" * 40), mode
            return self.repository.create_blob(target.encode()), mode
        data = content.encode() if isinstance(content, str) else content
        return self.repository.create_blob(data), FileMode.BLOB

    def _tree(self, entries: Mapping[str, tuple[pygit2.Oid, FileMode]]) -> pygit2.Oid:
        builder = self.repository.TreeBuilder()
        below: dict[str, dict[str, tuple[pygit2.Oid, FileMode]]] = {}
        for path, entry in entries.items():
            name, _, rest = path.partition("/")
            if rest:
                below.setdefault(name, {})[rest] = entry
            else:
                builder.insert(name, *entry)
        for name, inner in below.items():
            builder.insert(name, self._tree(inner), FileMode.TREE)
        return builder.write()

    def nest(self, id: pygit2.Oid, name: str) -> pygit2.Oid:
        builder = self.repository.TreeBuilder()
        builder.insert(name, id, FileMode.TREE)
        return builder.write()

    def spread(self, id: pygit2.Oid, count: int) -> pygit2.Oid:
        builder = self.repository.TreeBuilder()
        for number in range(count):
            builder.insert(str(number), id, FileMode.TREE)
        return builder.write()

    def read(self, files: Mapping[str, Content], limit: int = MIB) -> Spec:
        return read_spec(self.incoming, self.commit(files), limit)

    def refusal(self, files: Mapping[str, Content], limit: int = MIB) -> list[str]:
        with pytest.raises(PushRejected) as error:
            self.read(files, limit)
        return str(error.value).split("\n")


def link(target: str) -> tuple[FileMode, str]:
    return FileMode.LINK, target


@pytest.fixture
def commits(tmp_path: Path) -> Commits:
    return Commits(tmp_path / "r.git")


def test_a_procfile_makes_any_tree_an_app(commits: Commits) -> None:
    assert commits.read(WEB) == Spec("buildpack", {"web": "./run"}, "Procfile")
    spec = commits.read({**WEB, "package.json": "{}"})
    assert spec.notes == (
        "package.json found: nothing is installed for Node.js on this cluster yet, the tree runs as it is",
    )


@pytest.mark.parametrize("name", ["requirements.txt", "pyproject.toml"])
def test_bd02_python_is_seen_by_its_files(commits: Commits, name: str) -> None:
    assert commits.read({**WEB, name: ""}).detected == "Python"
    (line,) = commits.refusal({name: ""})
    assert line.startswith(f"{name} found, but no Procfile says what to run; write a file Procfile")


def test_pf05_pf06_pf08_a_bad_procfile_is_refused_with_its_lines(commits: Commits) -> None:
    lines = commits.refusal({"Procfile": "web\ninvoice_out: ./w\nweb:\n"})
    assert [line.split(":")[1] for line in lines] == ["1", "2", "3"]
    assert "'invoice-out'" in lines[1]


def test_bd05_nothing_to_detect(commits: Commits) -> None:
    lines = commits.refusal({"README.md": "x", "notes.txt": "y"})
    assert lines == [
        "nothing here says how to run this app",
        "looked for at the root: Dockerfile, Procfile, requirements.txt, pyproject.toml",
        "found at the root: README.md, notes.txt",
        'write a file Procfile at the root, a line for each process, as in "web: python3 app.py"',
    ]
    assert "found at the root: no file at all" in commits.refusal({})
    many = commits.refusal({f"f{number:03}": "" for number in range(100)})
    assert many[2].endswith("f019, …")


def test_bd06_near_misses_are_pointed_out(commits: Commits) -> None:
    files = {
        "backend/pyproject.toml": "",
        "frontend/package.json": "",
        "deep/er/Procfile": "",
        "dockerfile": "",
    }
    lines = commits.refusal(files)
    assert "dockerfile: the file must be called Dockerfile, with a capital D" in lines
    (down,) = [line for line in lines if line.startswith("found one level down")]
    assert "backend/pyproject.toml, frontend/package.json;" in down
    assert "git subtree split" in down
    (line,) = commits.refusal({"procfile": "web: ./a"})
    assert line == "procfile: the file must be called Procfile, with a capital P: git mv procfile Procfile"


@pytest.mark.parametrize(
    ("files", "found"),
    [
        ({"Dockerfile": "FROM x"}, "Dockerfile: building from a Dockerfile is not supported"),
        ({**WEB, "Dockerfile": "FROM x"}, "Dockerfile: building from a Dockerfile is not supported"),
        ({**WEB, ".drycc/web.yaml": "x"}, ".drycc: pipelines are not supported"),
        ({"package.json": "{}"}, "package.json found: Node.js is not supported"),
        ({"go.mod": "module x"}, "go.mod found: Go is not supported"),
    ],
)
def test_what_is_not_supported_yet_is_named(commits: Commits, files: dict[str, Content], found: str) -> None:
    (line,) = commits.refusal(files)
    assert line.startswith(f"{found} on this cluster yet;")
    assert "Procfile" in line


@pytest.mark.parametrize(
    ("links", "leaving"),
    [
        ({"conf": link("/some/where/else")}, ["conf"]),
        ({"a": link("../../x")}, ["a"]),
        ({"b": link("dir/file"), "dir/file": "x"}, []),
        ({"dir/b": link("../x"), "dir/c": link("../../x")}, ["dir/c"]),
        ({"deep/d": link(".."), "x": link("deep/d/.."), "y": link("deep/d/deep")}, ["x"]),
        ({"a": link("b"), "b": link("/etc")}, ["a", "b"]),
        ({"a": link("b"), "b": link("a")}, []),
        ({"a": link("./gone/../dir"), "dir/x": link("..")}, []),
        ({"a": link("x//..//.."), "x/y": ""}, ["a"]),
    ],
)
def test_bd12_links_that_leave_the_tree_are_refused(
    commits: Commits, links: dict[str, Content], leaving: list[str]
) -> None:
    if not leaving:
        commits.read({**WEB, **links})
        return
    lines = commits.refusal({**WEB, **links})
    assert sorted(line.split(": this link leads out of the app (")[0] for line in lines) == leaving


def test_gp09_a_submodule_is_named_with_what_to_do(commits: Commits) -> None:
    gitlink = (FileMode.COMMIT, "")
    (line,) = commits.refusal({**WEB, "vendor/lib": gitlink})
    assert line.startswith("vendor/lib: this is a submodule without a URL")
    assert "git rm --cached vendor/lib" in line
    modules = '[submodule "lib"]\n\tpath = vendor/lib\n\turl = https://example.com/lib\n'
    (line,) = commits.refusal({**WEB, "vendor/lib": gitlink, ".gitmodules": modules})
    assert line.startswith("vendor/lib: this is a submodule; submodules are not fetched here")


def test_all_faults_are_told_at_once(commits: Commits) -> None:
    lines = commits.refusal(
        {"Procfile": "web", "a": link("/x"), "Dockerfile": "", "sub": (FileMode.COMMIT, "")}
    )
    assert [line.split(":")[0] for line in lines] == ["sub", "a", "Dockerfile", "Procfile"]


def test_sizes_are_known_before_anything_is_read(commits: Commits) -> None:
    zeros = b"\0" * (4 * MIB)
    (line,) = commits.refusal({**WEB, "zeros": zeros}, limit=4 * MIB)
    assert "larger than 4194304 bytes together" in line
    commits.read({**WEB, "zeros": zeros}, limit=5 * MIB)
    (line,) = commits.refusal({"Procfile": b"#" * (MIB + 1)}, limit=5 * MIB)
    assert line == "Procfile: 1048577 bytes; it may have at most 1048576"
    (line,) = commits.refusal({**WEB, "a": link("x" * 5000)})
    assert "longer than a path can be" in line


def test_a_deep_tree_and_a_tree_bomb_are_refused(commits: Commits, monkeypatch: pytest.MonkeyPatch) -> None:
    def refusal(id: pygit2.Oid) -> str:
        with pytest.raises(PushRejected) as error:
            read_spec(commits.incoming, commits.commit_tree(id), MIB)
        return str(error.value)

    deep = bomb = commits._tree({"x": commits._entry("x")})
    for _ in range(tree.DEEPEST + 1):
        deep = commits.nest(deep, "d")
    assert "nested deeper than 64" in refusal(deep)
    for _ in range(10):
        bomb = commits.spread(bomb, 10)
    assert "more than 200000 files" in refusal(bomb)


def test_what_is_no_commit_is_refused(commits: Commits) -> None:
    blob = commits.repository.create_blob(b"x")
    with pytest.raises(PushRejected, match="this is no commit"):
        read_spec(commits.incoming, str(blob), MIB)


def test_names_that_are_no_text_do_no_harm(commits: Commits) -> None:
    name = "caf\udce9".encode(errors="surrogateescape")
    entry = b"120000 " + name + b"\0" + commits.repository.create_blob(b"/x").raw
    id = commits.repository.odb.write(pygit2.enums.ObjectType.TREE, entry)
    with pytest.raises(PushRejected, match="caf\ufffd: this link leads out"):
        read_spec(commits.incoming, commits.commit_tree(id), MIB)
