"""What a PNG or JPEG file says of itself before it is decoded: its size, and whether it is whole.

OpenCV's decoders, libpng and libjpeg, write lines of their own to the process's stderr, and no setting of OpenCV stops
them. So what they would complain of is found here, as far as the structure of a file shows it, and a PNG is passed on
without the chunks that they warn about. What is left are lines on pixels that are damaged under a good structure, such
as "Corrupt JPEG data: premature end of data segment"; ran-infer keeps those off the terminal in another way.
"""

from __future__ import annotations

import zlib
from dataclasses import dataclass

__all__ = ["JPEG_START", "PNG_SIGNATURE", "Header", "read_jpeg", "read_png"]

PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"
PNG_CRITICAL = frozenset({b"IHDR", b"PLTE", b"IDAT", b"IEND"})
# Transparency, animation, orientation. OpenCV uses no other (4.10 and 5.0 decode to the same pixels without them).
PNG_USED = frozenset({b"tRNS", b"acTL", b"fcTL", b"fdAT", b"eXIf"})
PNG_BIT_DEPTHS = {0: (1, 2, 4, 8, 16), 2: (8, 16), 3: (1, 2, 4, 8), 4: (8, 16), 6: (8, 16)}  # by colour type

JPEG_START, JPEG_END, JPEG_SCAN = b"\xff\xd8", b"\xff\xd9", 0xDA
JPEG_FRAMES = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}  # the markers that carry the size, ITU-T T.81 table B.1
JPEG_WITHOUT_LENGTH = frozenset({0x01, *range(0xD0, 0xD9)})


@dataclass(frozen=True)
class Header:
    """`size` is (width, height), zeros if not found; `damage` completes "the file ...", empty if it seems whole.

    `data` is what to decode.
    """

    size: tuple[int, int]
    damage: str
    data: bytes


def read_png(data: bytes) -> Header:
    """Walk over the chunks and compare their checksums. Source: PNG specification, sections 5 and 11."""
    view, position, size = memoryview(data), len(PNG_SIGNATURE), (0, 0)
    kept: list[bytes | memoryview] = [PNG_SIGNATURE]
    while (end := position + 12 + _big_endian(data, position, 4)) <= len(data):
        kind, content = data[position + 4 : position + 8], view[position + 8 : end - 4]
        is_whole = zlib.crc32(view[position + 4 : end - 4]) == _big_endian(data, end - 4, 4)
        if kind == b"IHDR":
            size = _big_endian(data, position + 8, 4), _big_endian(data, position + 12, 4)
        if damage := _png_damage(kind, content, is_whole):
            return Header(size, damage, data)
        if kind in PNG_CRITICAL or (kind in PNG_USED and is_whole):
            kept.append(view[position:end])
        if kind == b"IEND":
            return Header(size, "", b"".join(kept))
        position = end
    return Header(size, _cut(data), data)


def _png_damage(kind: bytes, content: memoryview, is_whole: bool) -> str:
    is_critical = not kind[0] & 0x20
    if is_critical and not is_whole:
        return "is damaged (a chunk's checksum is wrong)"
    if is_critical and kind not in PNG_CRITICAL:  # such as CgBI, which Apple's tools write
        return f"is no standard PNG (it has a {kind.decode('ascii', 'replace')} chunk)"
    if kind != b"IHDR":
        return ""
    depth, colour, compression, filtering, interlace = bytes(content[8:13]).ljust(5, b"\xff")
    is_valid = compression == filtering == 0 and interlace < 2 and depth in PNG_BIT_DEPTHS.get(colour, ())
    return "" if is_valid else "is damaged (no PNG has such a header)"


def read_jpeg(data: bytes) -> Header:
    """Walk over the segments; the file is whole if the end marker follows the first scan. Source: ITU-T T.81, annex B.

    A thumbnail inside the segments has an end marker of its own.
    """
    position, size = 2, (0, 0)
    while position + 4 <= len(data) and data[position] == 0xFF:
        marker = data[position + 1]
        if marker == 0xFF or marker in JPEG_WITHOUT_LENGTH:  # a fill byte, or a marker alone
            position += 1 if marker == 0xFF else 2
            continue
        if marker in JPEG_FRAMES:
            size = _big_endian(data, position + 7, 2), _big_endian(data, position + 5, 2)
        if marker == JPEG_SCAN:
            return Header(size, "" if data.rfind(JPEG_END) > position else _cut(data), data)
        position += 2 + _big_endian(data, position + 2, 2)
    return Header(size, _cut(data), data)


def _cut(data: bytes) -> str:
    return f"is incomplete (cut short after {len(data)} bytes)"


def _big_endian(data: bytes, start: int, count: int) -> int:
    return int.from_bytes(data[start : start + count], "big")
