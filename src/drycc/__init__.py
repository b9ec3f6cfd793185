"""Drycc Workflow in one process: a git-push PaaS as one asyncio program."""

__version__ = "0.1.0"
