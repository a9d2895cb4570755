"""Draw PNG files of coloured noise. Pure."""

import base64
import random
import struct
import zlib

__all__ = ["draw_png_base64"]


def draw_png_base64(side_px: int, seed: str) -> str:
    """Return a square PNG as base64; noise does not compress, so it has about three bytes for each pixel."""
    pick = random.Random(seed)
    rows = b"".join(b"\0" + pick.randbytes(3 * side_px) for _ in range(side_px))  # the first byte of a row: no filter
    header = struct.pack(">IIBBBBB", side_px, side_px, 8, 2, 0, 0, 0)  # 8 bits a channel, RGB
    chunks = ((b"IHDR", header), (b"IDAT", zlib.compress(rows, 1)), (b"IEND", b""))
    return base64.b64encode(b"\x89PNG\r\n\x1a\n" + b"".join(_pack_chunk(*chunk) for chunk in chunks)).decode()


def _pack_chunk(name: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))
