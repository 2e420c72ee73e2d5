"""Pack many command-line arguments into one: shells limit commands to 128 KiB, and studies have thousands of files.

``python -m sharpness.runtime.words WORD...`` prints the unpacked arguments of a job's command.
"""

from __future__ import annotations

import lzma
import sys
from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections.abc import Iterable, Mapping
from typing import Any

_MARK = "packed:"


def pack(words: Iterable[object]) -> str:
    """Pack arguments into one, for ``unpack``."""
    return _MARK + urlsafe_b64encode(lzma.compress("\0".join(map(str, words)).encode())).decode()


def unpack(words: Iterable[str]) -> list[str]:
    """Unpack packed arguments; keep the others."""
    return [one for word in words for one in _unpacked(word)]


def flags(prefix: str, values: Mapping[str, Any]) -> list[str]:
    """Format ``values`` as arguments of a stage: --prefix.key value."""

    def words(key: str, value: Any) -> Iterable[str]:
        yield f"--{prefix}.{key.replace('_', '-')}"
        yield from (str(item) for item in value) if isinstance(value, list | tuple) else [str(value)]

    return [word for key, value in values.items() for word in words(key, value)]


def _unpacked(word: str) -> list[str]:
    if not word.startswith(_MARK):
        return [word]
    return lzma.decompress(urlsafe_b64decode(word.removeprefix(_MARK))).decode().split("\0")


if __name__ == "__main__":
    print(*unpack(sys.argv[1:]), sep="\n")
