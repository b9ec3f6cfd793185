"""Apps whose builds do what a test wants: a package of theirs that pip builds runs Python code on the way.

With `VERBOSE` among the platform's settings pip shows line by line what that code prints.
"""

from tests.e2e import apps

VERBOSE = {"PIP_VERBOSE": "1", "PIP_NO_INDEX": "1"}
BACKEND = """\
import os, zipfile

INFO = "step-1.dist-info"
FILES = {
    f"{INFO}/METADATA": "Metadata-Version: 2.1\\nName: step\\nVersion: 1\\n",
    f"{INFO}/WHEEL": "Wheel-Version: 1.0\\nRoot-Is-Purelib: true\\nTag: py3-none-any\\n",
    f"{INFO}/RECORD": "",
}


def prepare_metadata_for_build_wheel(directory, config_settings=None):
    os.mkdir(os.path.join(directory, INFO))
    for name, text in FILES.items():
        with open(os.path.join(directory, name), "w") as file:
            file.write(text)
    return INFO


def build_wheel(directory, config_settings=None, metadata_directory=None):
    import step
    name = "step-1-py3-none-any.whl"
    with zipfile.ZipFile(os.path.join(directory, name), "w") as wheel:
        for path, text in FILES.items():
            wheel.writestr(path, text)
    return name
"""
PROJECT = """\
[build-system]
requires = []
build-backend = "backend"
backend-path = ["."]
"""
SLEEPING = "import subprocess\nprint('going to sleep', flush=True)\nsubprocess.run(['sleep', '86400'])\n"


def running(step: str, answer: str = "'built'") -> dict[str, str]:
    """An app that answers, whose build runs `step`."""
    return apps.answering(answer) | {
        "requirements.txt": "./step\n",
        "step/pyproject.toml": PROJECT,
        "step/backend.py": BACKEND,
        "step/step.py": step,
    }


def numbering(count: int, seconds: float) -> str:
    """Prints `line 0` to `line <count - 1>`, in bursts spread over that time."""
    return (
        "import random, time\n"
        f"count, seconds, number, began = {count}, {seconds}, 0, time.monotonic()\n"
        "while number < count:\n"
        "    due = int(count * (time.monotonic() - began) / seconds) + random.randrange(1, 9)\n"
        "    due = max(number, min(count, due))\n"
        "    for number in range(number, due):\n"
        "        print('line', number)\n"
        "    number = due\n"
        "    print(end='', flush=True)\n"
        "    time.sleep(random.random() / 50)\n"
    )
