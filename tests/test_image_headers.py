"""Headers of PNG and JPEG files, and that libpng has nothing to say on what passes them."""

from __future__ import annotations

import io
import struct
import zlib

import numpy as np
import pytest
from PIL import Image

from ran_deploy.errors import InputError
from ran_deploy.image_headers import read_jpeg, read_png
from ran_deploy.images import decode_image


def encoded(kind: str, **options: object) -> bytes:
    stream = io.BytesIO()
    pixels = np.random.default_rng(3).integers(0, 256, (13, 17, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(stream, kind, **options)
    return stream.getvalue()


def chunk(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def png(width: int, height: int, *fields: int, extra: bytes = b"") -> bytes:
    """Return a PNG with these fields: bit depth, colour type, compression, filter, interlace."""
    header = chunk(b"IHDR", struct.pack(">II", width, height) + bytes(fields))
    return b"\x89PNG\r\n\x1a\n" + header + extra + chunk(b"IDAT", zlib.compress(bytes(1000))) + chunk(b"IEND", b"")


AFTER_IHDR = 33
RGB8 = (8, 2, 0, 0, 0)
REFUSED = {
    "no pixels": (png(0, 0, *RGB8), r"says 0x0, an image without pixels"),
    "no height": (png(5, 0, *RGB8), r"says 5x0, an image without pixels"),
    "bit depth": (png(5, 5, 3, 2, 0, 0, 0), "no PNG has such a header"),
    "colour type": (png(5, 5, 8, 1, 0, 0, 0), "no PNG has such a header"),
    "compression": (png(5, 5, 8, 2, 1, 0, 0), "no PNG has such a header"),
    "filter": (png(5, 5, 8, 2, 0, 1, 0), "no PNG has such a header"),
    "interlace": (png(5, 5, 8, 2, 0, 0, 2), "no PNG has such a header"),
    "short header": (png(5, 5, 8), "no PNG has such a header"),
    "Apple's": (png(5, 5, *RGB8, extra=chunk(b"CgBI", b"")), "no standard PNG.*CgBI"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_a_header_of_no_image_is_refused_before_libpng_sees_it(case, capfd):
    data, message = REFUSED[case]
    with pytest.raises(InputError, match=rf"^photo\.png: .*{message}.* again\.$"):
        decode_image(data, "photo.png")
    assert capfd.readouterr() == ("", "")


UNREADABLE = {
    kind: chunk(kind.encode(), b"zz")
    for kind in ("iCCP", "sRGB", "gAMA", "cHRM", "tEXt", "zTXt", "iTXt", "tIME", "pHYs", "sBIT", "bKGD", "hIST", "cICP")
}
UNREADABLE["wrong checksum"] = chunk(b"tEXt", b"a\0b")[:-1] + b"\0"


@pytest.mark.parametrize("case", UNREADABLE)
def test_chunks_that_tell_nothing_of_the_pixels_are_not_passed_on(case, capfd):
    plain = encoded("PNG")
    data = plain[:AFTER_IHDR] + UNREADABLE[case] + plain[AFTER_IHDR:]
    np.testing.assert_array_equal(decode_image(data, "x"), decode_image(plain, "x"))
    assert read_png(data).data == plain
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("cut", [False, True])
def test_no_damage_of_a_png_makes_libpng_speak(capfd, rng, cut):
    plain = encoded("PNG")
    for _ in range(200):
        damaged = bytearray(plain)
        damaged[rng.integers(8, len(plain))] ^= 1 << rng.integers(8)
        if cut:
            damaged = damaged[: rng.integers(8, len(plain))]
        with pytest.raises(InputError, match=r"damaged|incomplete|no standard|at most"):
            decode_image(bytes(damaged), "x")
    assert capfd.readouterr() == ("", "")


def test_sizes_are_width_and_height():
    assert read_png(encoded("PNG")).size == (17, 13)
    assert read_jpeg(encoded("JPEG")).size == (17, 13)
    assert read_jpeg(encoded("JPEG", progressive=True)).size == (17, 13)


def test_transparency_and_orientation_are_passed_on():
    exif = Image.Exif()
    exif[0x112] = 6
    turned = encoded("PNG", exif=exif)
    assert decode_image(turned, "x").shape == (17, 13, 3)
    clear = encoded("PNG")[:AFTER_IHDR] + chunk(b"tRNS", bytes(6)) + encoded("PNG")[AFTER_IHDR:]
    assert read_png(clear).data == clear
