"""Decoding against Pillow, and every kind of file that is not a whole image."""

from __future__ import annotations

import io
import os
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from ran_deploy.errors import InputError
from ran_deploy.images import decode_image, is_image_path, read_image


def smooth(height: int = 53, width: int = 71) -> Image.Image:
    small = np.random.default_rng(3).integers(0, 256, (6, 8, 3), dtype=np.uint8)
    return Image.fromarray(small).resize((width, height), Image.Resampling.BICUBIC)


def encoded(image: Image.Image, kind: str, **options: object) -> bytes:
    stream = io.BytesIO()
    image.save(stream, kind, **options)
    return stream.getvalue()


def with_alpha(image: Image.Image) -> Image.Image:
    image = image.convert("RGBA")
    image.putalpha(Image.linear_gradient("L").resize(image.size))
    return image


@pytest.mark.parametrize(
    ("data", "tolerance"),
    [
        (encoded(smooth(), "JPEG"), 2),  # decoders may differ in rounding and chroma upsampling
        (encoded(smooth(), "JPEG", progressive=True), 2),
        (encoded(smooth().convert("L"), "JPEG"), 2),
        (encoded(smooth().convert("CMYK"), "JPEG"), 3),
        (encoded(smooth(), "PNG"), 0),
        (encoded(smooth().convert("L"), "PNG"), 0),
        (encoded(smooth().convert("1"), "PNG"), 0),
        (encoded(smooth().convert("P"), "PNG", transparency=3), 0),
        (encoded(with_alpha(smooth()), "PNG"), 0),
        (encoded(with_alpha(smooth()).convert("LA"), "PNG"), 0),
        (encoded(with_alpha(smooth()), "WEBP", lossless=True, exact=True), 0),
        (encoded(smooth(), "BMP"), 0),
        (encoded(smooth(), "TIFF", compression="tiff_lzw"), 0),
        (encoded(smooth(), "PPM"), 0),
    ],
)
def test_decode_is_what_pillow_converts_to_rgb(data, tolerance):
    expected = np.asarray(Image.open(io.BytesIO(data)).convert("RGB"))
    image = decode_image(data, "x")
    assert (image.dtype, image.shape) == (np.uint8, expected.shape)
    assert np.abs(image.astype(int) - expected).max() <= tolerance


def test_of_16_bit_channels_the_high_byte_is_kept():
    high = np.asarray(smooth().convert("L"))
    data = encoded(Image.fromarray((high.astype(np.uint16) << 8) + 99), "PNG")
    np.testing.assert_array_equal(decode_image(data, "x"), np.repeat(high[:, :, None], 3, axis=2))


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation_is_applied(orientation):
    exif = Image.Exif()
    exif[0x112] = orientation
    image = Image.open(io.BytesIO(encoded(smooth(), "JPEG", exif=exif)))
    turn = {
        2: Image.Transpose.FLIP_LEFT_RIGHT,
        3: Image.Transpose.ROTATE_180,
        4: Image.Transpose.FLIP_TOP_BOTTOM,
        5: Image.Transpose.TRANSPOSE,
        6: Image.Transpose.ROTATE_270,
        7: Image.Transpose.TRANSVERSE,
        8: Image.Transpose.ROTATE_90,
    }.get(orientation)
    expected = np.asarray(image if turn is None else image.transpose(turn)).astype(int)
    decoded = decode_image(encoded(smooth(), "JPEG", exif=exif), "x")
    assert decoded.shape == expected.shape
    assert np.abs(decoded - expected).max() <= 2


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "TIFF", "BMP"])
@pytest.mark.parametrize("kept", [0.1, 0.6, 0.95])
def test_a_file_cut_short_is_an_error(kind, kept):
    data = encoded(smooth(), kind)
    with pytest.raises(InputError, match=r"^photo\.x: .*(incomplete|damaged)"):
        decode_image(data[: int(len(data) * kept)], "photo.x")


def test_a_cut_jpeg_is_not_saved_by_the_end_marker_of_its_thumbnail():
    thumbnail = encoded(smooth(12, 16), "JPEG")
    data = encoded(smooth(), "JPEG")
    with_thumbnail = data[:2] + b"\xff\xe2" + struct.pack(">H", len(thumbnail) + 2) + thumbnail + data[2:]
    assert decode_image(with_thumbnail, "x").shape == (53, 71, 3)
    with pytest.raises(InputError, match="incomplete"):
        decode_image(with_thumbnail[:-200], "x")


def test_bytes_after_the_end_of_an_image_do_no_harm():
    for kind in ("JPEG", "PNG"):
        assert decode_image(encoded(smooth(), kind) + b"\0" * 100, "x").shape == (53, 71, 3)


@pytest.mark.parametrize(
    "data", [b"", b"no image at all\n" * 20, b"\xff\xd8", b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff\xe0\0\0" * 9]
)
def test_what_is_no_image_is_an_error_of_one_line(data):
    with pytest.raises(InputError, match=r"^notes\.txt: ") as caught:
        decode_image(data, "notes.txt")
    assert "\n" not in str(caught.value)


def png_chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def huge_png() -> bytes:
    header = png_chunk(b"IHDR", struct.pack(">IIBBBBB", 40_000, 40_000, 8, 2, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + png_chunk(b"IDAT", zlib.compress(bytes(1000))) + png_chunk(b"IEND", b"")


def huge_jpeg() -> bytes:
    data = bytearray(encoded(smooth(), "JPEG"))
    frame = data.index(b"\xff\xc0")
    data[frame + 5 : frame + 9] = struct.pack(">HH", 40_000, 40_000)
    return bytes(data)


def huge_bmp() -> bytes:
    data = bytearray(encoded(smooth(), "BMP"))
    data[18:26] = struct.pack("<ii", 40_000, 40_000)
    return bytes(data)


@pytest.mark.parametrize("data", [huge_png(), huge_jpeg(), huge_bmp()], ids=["png", "jpeg", "bmp"])
def test_a_small_file_that_claims_a_huge_image_is_refused(data):
    with pytest.raises(InputError, match=r"pixels"):
        decode_image(data, "bomb")


def test_read_image_names_the_file_it_cannot_read(tmp_path):
    with pytest.raises(InputError, match=r"gone\.png: cannot be read \(No such file"):
        read_image(tmp_path / "gone.png")
    with pytest.raises(InputError, match="cannot be read"):
        read_image(tmp_path)


def test_a_file_too_large_for_any_image_is_refused_unread(tmp_path):
    path = tmp_path / "huge.png"
    path.touch()
    os.truncate(path, 2**40)  # sparse: to read it takes a terabyte of memory
    with pytest.raises(InputError, match=r"huge\.png: the file has 1,099,511,627,776 bytes; at most 2,147,483,648 are"):
        read_image(path)


@pytest.mark.parametrize("device", ["/dev/zero", "/dev/null"])
def test_a_device_is_no_image_and_is_not_read(device):
    with pytest.raises(InputError, match=f"^{device}: is a device; expected an image file, or a camera such as"):
        read_image(Path(device))


def test_read_image_reads_a_path_that_is_not_ascii(tmp_path):
    path = tmp_path / "Überfall 猫.png"
    smooth().save(path)
    np.testing.assert_array_equal(read_image(path), np.asarray(smooth()))


@pytest.mark.parametrize(("name", "expected"), [("a.JPG", True), ("b/c.jpeg", True), ("d.txt", False), ("png", False)])
def test_is_image_path_goes_by_the_suffix(name, expected):
    assert is_image_path(Path(name)) is expected
