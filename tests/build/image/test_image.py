"""The image builder as the program that it is: a source tar in, an image directory out."""

import io
import json
import os
import subprocess
import sys
import tarfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from zipfile import ZipFile

import pytest

from drycc.build.image import main
from drycc.build.image.disk import digest_tree, measure_tree
from drycc.build.image.python import is_pinned, read_runtime
from drycc.errors import BuildFailed
from drycc.kit.files import delete_tree

HERE = "{}.{}.{}".format(*sys.version_info[:3])


@dataclass
class Site:
    """The places of one app's builds."""

    home: Path

    def source(self, files: Mapping[str, str], links: Mapping[str, str] | None = None) -> Path:
        path = self.home / "source.tar"
        with tarfile.open(path, "w") as tar:
            for name, text in files.items():
                member = tarfile.TarInfo(name)
                member.size = len(text.encode())
                member.mode = 0o755 if name.endswith(".sh") else 0o644
                tar.addfile(member, io.BytesIO(text.encode()))
            for name, target in (links or {}).items():
                member = tarfile.TarInfo(name)
                member.type, member.linkname = tarfile.SYMTYPE, target
                tar.addfile(member)
        return path

    def environ(self, build: int = 1) -> dict[str, str]:
        return {
            "DRYCC_SOURCE": str(self.home / "source.tar"),
            "DRYCC_IMAGE_DIR": str(self.image(build)),
            "DRYCC_VENVS_DIR": str(self.home / "venvs/shop"),
            "DRYCC_PYTHON": sys.executable,
            "DRYCC_RESULT": str(self.home / "image.json"),
        }

    def image(self, build: int = 1) -> Path:
        return self.home / "images/shop" / str(build)

    def result(self) -> dict[str, str | None]:
        return dict(json.loads((self.home / "image.json").read_text()))

    def wheel(self, name: str, version: str, code: str) -> Path:
        """A package that pip installs from a file."""
        path = self.home / f"{name}-{version}-py3-none-any.whl"
        info = f"{name}-{version}.dist-info"
        with ZipFile(path, "w") as wheel:
            wheel.writestr(f"{name}.py", code)
            wheel.writestr(f"{info}/METADATA", f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")
            wheel.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
            wheel.writestr(f"{info}/entry_points.txt", f"[console_scripts]\n{name} = {name}:main\n")
            wheel.writestr(f"{info}/RECORD", "")
        return path


@pytest.fixture
def site(tmp_path: Path) -> Site:
    return Site(tmp_path)


def run(site: Site, build: int = 1, **more: str) -> tuple[int, str]:
    """As the cluster starts it, offline."""
    code = "import os, sys; from drycc.build.image import main; sys.exit(main(os.environ))"
    home = {"PATH": "/usr/bin:/bin", "HOME": str(site.home), "TMPDIR": str(site.home)}
    offline = {"PIP_NO_INDEX": "1", "PIP_FIND_LINKS": str(site.home), "PIP_CONFIG_FILE": os.devnull}
    done = subprocess.run(
        [sys.executable, "-c", code],
        env=home | offline | site.environ(build) | more,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.stderr == "", done.stderr
    return done.returncode, done.stdout


def test_a_procfile_app_is_its_tree(site: Site) -> None:
    site.source({"Procfile": "web: ./run.sh\n", "run.sh": "#!/bin/sh\n", "lib/a": "a"}, {"here": "lib/a"})
    status, said = run(site)
    assert status == 0, said
    tree = site.image() / "tree"
    assert (tree / "here").readlink() == Path("lib/a")
    assert os.access(tree / "run.sh", os.X_OK)
    assert not os.access(tree / "lib/a", os.X_OK)
    assert (tree / "lib").stat().st_mode & 0o222 == 0
    assert site.result() == json.loads((site.image() / "complete").read_text())
    assert site.result() == {"digest": digest_tree(tree, ""), "venv": None, "size": measure_tree(tree)}
    assert str(site.result()["digest"])[:19] in said


def test_the_digest_tells_content_names_links_and_bits(site: Site) -> None:
    seen = set()
    for files in (
        {"a": "x"},
        {"a": "y"},
        {"b": "x"},
        {"a.sh": "x"},
        {"a": "x", "b": "x"},
        {"a": "x", "d/b": "x"},
    ):
        site.source(files)
        assert main(site.environ()) == 0
        seen.add(site.result()["digest"])
        delete_tree(site.image())
    site.source({}, {"a": "x"})
    assert main(site.environ()) == 0
    assert len(seen | {site.result()["digest"]}) == 7


def test_a_build_that_died_is_begun_anew_and_a_complete_one_is_kept(site: Site) -> None:
    site.source({"Procfile": "web: ./a\n"})
    left = site.image() / "tree/left"
    left.parent.mkdir(parents=True)
    left.write_text("half")
    assert main(site.environ()) == 0
    assert not left.exists()
    before = (site.image() / "complete").stat().st_mtime_ns
    (site.home / "image.json").unlink()
    assert main(site.environ()) == 0
    assert (site.image() / "complete").stat().st_mtime_ns == before
    assert site.result()["venv"] is None


@pytest.mark.parametrize(
    ("files", "links"),
    [
        ({"../out": "x"}, {}),
        ({"/out": "x"}, {}),
        ({}, {"a": "/etc/passwd"}),
        ({}, {"a": "../../x"}),
        ({}, {"d": ".", "x": "d/../.."}),
    ],
)
def test_bd12_nothing_leaves_the_tree(
    site: Site, files: dict[str, str], links: dict[str, str], capsys: pytest.CaptureFixture[str]
) -> None:
    site.source(files, links)
    assert main(site.environ()) == 1
    assert "leads out of the app" in capsys.readouterr().out
    assert not (site.image() / "complete").exists()
    assert not (site.home / "image.json").exists()


def test_a_file_is_never_written_through_a_link(site: Site, capsys: pytest.CaptureFixture[str]) -> None:
    with tarfile.open(site.source({}, {"d": "/tmp"}), "a") as tar:
        tar.addfile(tarfile.TarInfo("d/escaped"))
    assert main(site.environ()) == 1
    assert " !     d/escaped: this path leads out of the app" in capsys.readouterr().out
    assert not Path("/tmp/escaped").exists()


def test_a_pinned_python_app_gets_an_environment_that_is_used_again(site: Site) -> None:
    site.wheel("hallo", "1.0", "def main():\n    print('hallo 1')\n")
    files = {"Procfile": "web: hallo\n", "requirements.txt": "hallo==1.0\n"}
    site.source(files)
    status, said = run(site)
    assert status == 0, said
    assert f"-----> Python {HERE}" in said
    assert "Successfully installed hallo-1.0" in said
    venv = Path(str(site.result()["venv"]))
    assert venv.parent == site.home / "venvs/shop"
    assert subprocess.check_output([venv / "bin/hallo"], text=True) == "hallo 1\n"
    assert list(venv.glob("lib/*/site-packages/__pycache__/hallo.*.pyc"))
    assert (venv / "bin").stat().st_mode & 0o222 == 0

    site.source(files | {"more": "x"})
    status, said = run(site, 2)
    assert status == 0
    assert "Using the dependencies installed before" in said
    assert site.result()["venv"] == str(venv)


def test_bd02_a_pyproject_is_installed_and_nothing_is_pinned(site: Site) -> None:
    site.wheel("hallo", "1.0", "def main():\n    print('hallo 1')\n")
    site.source(
        {"Procfile": "web: hallo\n", "pyproject.toml": '[project]\nname = "x"\ndependencies = ["hallo"]\n'}
    )
    status, said = run(site, 7)
    assert status == 0, said
    assert "pyproject.toml: not all versions are pinned" in said
    assert site.result()["venv"] == str(site.home / "venvs/shop/build-7")
    assert subprocess.check_output([f"{site.result()['venv']}/bin/hallo"], text=True) == "hallo 1\n"


def test_an_environment_that_was_not_finished_is_made_anew(site: Site) -> None:
    site.source({"Procfile": "web: x\n", "requirements.txt": "# none yet\n"})
    assert run(site)[0] == 0
    venv = Path(str(site.result()["venv"]))
    (venv / "complete").unlink()
    (venv / "bin/python").unlink()
    status, said = run(site, 2)
    assert status == 0
    assert "Using" not in said
    assert (venv / "bin/python").exists()


def test_a_dependency_that_is_not_there_fails_the_build(site: Site) -> None:
    site.source({"Procfile": "web: x\n", "requirements.txt": "no-such-thing==9\n"})
    status, said = run(site)
    assert status == 1
    assert "No matching distribution found for no-such-thing==9" in said
    assert said.splitlines()[-1].startswith(" !     ")
    assert not (site.image() / "complete").exists()


@pytest.mark.parametrize("end", ["", "\n", "\r\n", "\r\n\r\n", "  \r\n"])
def test_bd01_the_runtime_is_chosen_whatever_the_line_ends(site: Site, end: str) -> None:
    assert read_runtime(f"python-3.11.9{end}".encode()) == "3.11.9"
    for asked in (HERE, HERE.rpartition(".")[0]):
        site.source({"requirements.txt": "", "runtime.txt": f"python-{asked}{end}"})
        assert main(site.environ()) == 0
        delete_tree(site.image())


def test_bd01_a_runtime_that_is_not_there_is_refused(site: Site, capsys: pytest.CaptureFixture[str]) -> None:
    site.source({"requirements.txt": "", "runtime.txt": "python-3.1"})
    assert main(site.environ()) == 1
    assert f"runtime.txt asks for Python 3.1, there is {HERE}" in capsys.readouterr().out
    for text in (b"3.11", b"python-x", b"python-3.11 # mine", b"\xff"):
        with pytest.raises(BuildFailed, match="names no version"):
            read_runtime(text)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("flask==3.0.1\n\n# note\ngunicorn==22.0  # server\n", True),
        ("flask[async]==3.0.1 ; python_version > '3.8'\r\n", True),
        ("flask==3.0.1 \\\n    --hash=sha256:aa \\\n    --hash=sha256:bb\n", True),
        ("", True),
        ("flask\n", False),
        ("flask>=3\n", False),
        ("flask==3.*\n", False),
        ("-r other.txt\n", False),
        ("-e .\n", False),
        ("./lib/x.whl\n", False),
        ("x @ https://example.com/x.whl\n", False),
        ("flask==3.0.1\nrequests\n", False),
    ],
)
def test_which_requirements_are_a_lock(text: str, expected: bool) -> None:
    assert is_pinned(text.encode()) is expected
