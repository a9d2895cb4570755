"""Write a picture with at most 256 colours: pictures of pages have few, and take a third of the bytes then."""

import base64
import struct
import zlib

from playwright.async_api import Page

#: Reads a picture, keeps its most frequent colours, and gives each other pixel the nearest of them.
_COUNT_COLOURS = """async source => {
  const image = new Image();
  image.src = `data:image/png;base64,${source}`;
  await image.decode();
  const canvas = new OffscreenCanvas(image.width, image.height), context = canvas.getContext("2d");
  context.drawImage(image, 0, 0);
  const {data} = context.getImageData(0, 0, image.width, image.height);
  const pixels = new Uint32Array(data.buffer), counts = new Map();
  for (const pixel of pixels) counts.set(pixel, (counts.get(pixel) || 0) + 1);
  const palette = [...counts].sort((a, b) => b[1] - a[1]).slice(0, 256).map(([pixel]) => pixel);
  const parts = pixel => [pixel & 255, pixel >> 8 & 255, pixel >> 16 & 255];
  const known = palette.map(parts), place = new Map(palette.map((pixel, index) => [pixel, index]));
  for (const pixel of counts.keys()) {
    if (place.has(pixel)) continue;
    const [r, g, b] = parts(pixel);
    const far = known.map(([x, y, z]) => (x - r) ** 2 + (y - g) ** 2 + (z - b) ** 2);
    place.set(pixel, far.indexOf(Math.min(...far)));
  }
  const indices = Uint8Array.from(pixels, pixel => place.get(pixel));
  let text = "";
  for (let at = 0; at < indices.length; at += 8192) text += String.fromCharCode(...indices.subarray(at, at + 8192));
  return {width: image.width, height: image.height, palette: known.flat(), indices: btoa(text)};
}"""


async def shrink_png(blank: Page, png: bytes) -> bytes:
    """Return the same picture as a PNG with a palette; `blank` is a page whose canvas is used."""
    found = await blank.evaluate(_COUNT_COLOURS, base64.b64encode(png).decode())
    width, height = found["width"], found["height"]
    indices = base64.b64decode(found["indices"])
    rows = b"".join(b"\0" + indices[row * width : (row + 1) * width] for row in range(height))
    head = struct.pack(">IIBBBBB", width, height, 8, 3, 0, 0, 0)
    chunks = ((b"IHDR", head), (b"PLTE", bytes(found["palette"])), (b"IDAT", zlib.compress(rows, 9)), (b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(map(_pack_chunk, chunks))


def _pack_chunk(chunk: tuple[bytes, bytes]) -> bytes:
    kind, body = chunk
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))
