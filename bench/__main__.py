"""`make bench`: every figure that we quote, as a table with its anchor beside it."""

import argparse
import asyncio
import importlib

SUBJECTS = ("footprint", "push", "edge", "build_log")


def main() -> None:
    parser = argparse.ArgumentParser("bench", description=__doc__)
    parser.add_argument("subjects", nargs="*", choices=[*SUBJECTS, []], help="all when none is named")
    for subject in parser.parse_args().subjects or SUBJECTS:
        asyncio.run(importlib.import_module(f"bench.{subject}").measure())


if __name__ == "__main__":
    main()
