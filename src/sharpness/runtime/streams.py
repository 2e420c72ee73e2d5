"""Random streams: randomness is an argument, and the global generator is never touched."""

from __future__ import annotations

import hashlib

import torch


def stream(seed: int, purpose: str) -> torch.Generator:
    """Return an independent random stream for each purpose, so that adding one does not shift the others.

    It is on the CPU: numbers are drawn there and then moved, so that devices agree.
    """
    digest = hashlib.sha256(f"{seed}/{purpose}".encode()).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest[:7], "big"))
