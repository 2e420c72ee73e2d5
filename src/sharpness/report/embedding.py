"""What a page holds of other files: images, data and programs, as small as they get."""

from __future__ import annotations

import base64
import gzip
import io
import json
import struct
from functools import lru_cache
from typing import Any

from PIL import Image


def json_in_html(value: Any) -> str:
    """A value as JSON that may stand within an element of a page."""
    return json.dumps(value, separators=(",", ":")).replace("<", "\\u003c").replace("&", "\\u0026")


@lru_cache(maxsize=8)
def packed(text: str) -> str:
    """A text by gzip, in base64; the same bytes for the same text."""
    return base64.b64encode(gzip.compress(text.encode(), mtime=0)).decode()


@lru_cache(maxsize=64)
def data_uri(image: bytes) -> str:
    """A PNG as an address, in a palette of 256 colours where that is smaller."""
    with Image.open(io.BytesIO(image)) as picture:
        smaller = io.BytesIO()
        on_white = Image.new("RGBA", picture.size, "white")
        on_white.alpha_composite(picture.convert("RGBA"))
        on_white.convert("RGB").quantize(256).save(smaller, "png", optimize=True)
    return f"data:image/png;base64,{base64.b64encode(min(image, smaller.getvalue(), key=len)).decode()}"


def size(image: bytes) -> dict[str, int]:
    """Width and height of a PNG, which stand at the beginning of its header."""
    width, height = struct.unpack(">II", image[16:24])
    return {"width": width, "height": height}
