"""Sealing bytes with AES-256-GCM, digests with a key, and password hashing off the event loop."""

import asyncio
import hashlib
import hmac
import os
from concurrent.futures import ThreadPoolExecutor

from argon2 import PasswordHasher
from argon2.exceptions import InvalidHashError, VerificationError
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

# OWASP's second choice: 32 MiB, two passes, about 60 ms.
_hasher = PasswordHasher(time_cost=2, memory_cost=32 * 1024, parallelism=1)
_threads = ThreadPoolExecutor(os.cpu_count(), thread_name_prefix="password")


class SealBroken(Exception):
    """The sealed bytes were changed, moved to another place, or sealed with another key."""


def seal(key: bytes, data: bytes, place: str) -> bytes:
    """Encrypt with a 32-byte key; `place` says where the result stands and is authenticated with it."""
    nonce = os.urandom(12)
    return nonce + AESGCM(key).encrypt(nonce, data, place.encode())


def unseal(key: bytes, sealed: bytes, place: str) -> bytes:
    """The inverse of `seal`; raises `SealBroken`."""
    try:
        return AESGCM(key).decrypt(sealed[:12], sealed[12:], place.encode())
    except (InvalidTag, ValueError) as error:
        raise SealBroken(place) from error


def digest(key: bytes, text: str) -> bytes:
    return hmac.digest(key, text.encode(), hashlib.sha256)


async def hash_password(password: str) -> str:
    return await asyncio.get_running_loop().run_in_executor(_threads, _hasher.hash, password)


async def is_password(hashed: str, password: str) -> bool:
    return await asyncio.get_running_loop().run_in_executor(_threads, _verify, hashed, password)


def _verify(hashed: str, password: str) -> bool:
    try:
        return _hasher.verify(hashed, password)
    except (VerificationError, InvalidHashError):
        return False
