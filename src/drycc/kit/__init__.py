"""Asyncio and web pieces that know nothing of a PaaS."""
