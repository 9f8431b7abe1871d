"""What a file turns out to be, told by its content, where something else was expected: words for an error message."""

from __future__ import annotations

import re
import zipfile
from dataclasses import dataclass
from pathlib import Path

from ran_deploy.errors import CheckpointError

__all__ = ["BUNDLE", "PICKLE", "SAFETENSORS", "TORCH_SAVE", "FileKind", "file_kind", "require_checkpoint_file"]

HEAD_BYTES = 4096
SHOWN_CHARACTERS = 40  # of a text or a title


@dataclass(frozen=True)
class FileKind:
    """`what` completes "the file is ..."; `advice` is a sentence on how to get the right one, or empty."""

    what: str
    advice: str = ""


TORCH_SAVE = FileKind("a file of torch.save")
PICKLE = FileKind("a pickle of Python objects")
SAFETENSORS = FileKind("a safetensors file")
BUNDLE = FileKind("a bundle of ran-export")

# The first bytes of what is found under a checkpoint's or a bundle's name.
SIGNATURES = {
    b"\x89PNG\r\n\x1a\n": FileKind("a PNG image"),
    b"\xff\xd8\xff": FileKind("a JPEG image"),
    b"GIF8": FileKind("a GIF image"),
    b"%PDF": FileKind("a PDF document"),
    b"\x89HDF\r\n\x1a\n": FileKind("an HDF5 file, as Keras writes"),
    b"\x93NUMPY": FileKind("a NumPy array"),
    b"GGUF": FileKind("a GGUF file"),
    b"\x1f\x8b": FileKind("compressed with gzip", "Unpack it first."),
    b"BZh": FileKind("compressed with bzip2", "Unpack it first."),
    b"\xfd7zXZ\0": FileKind("compressed with xz", "Unpack it first."),
    b"\x28\xb5\x2f\xfd": FileKind("compressed with zstd", "Unpack it first."),
    b"7z\xbc\xaf\x27\x1c": FileKind("a 7z archive", "Unpack it first."),
    b"Rar!": FileKind("a RAR archive", "Unpack it first."),
}
TORCH_LEGACY = b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19."  # torch.save before 1.6: a pickled magic number comes first
# ModelProto: ir_version below 128, then another of its fields (https://github.com/onnx/onnx/blob/main/onnx/onnx.proto).
ONNX = re.compile(rb"\x08[\x01-\x7f][\x12\x1a\x22\x32\x3a\x42\x72]")
HTML = re.compile(rb"\s*(<!doctype html|<html)", re.IGNORECASE)
TITLE = re.compile(rb"<title[^>]*>(.*?)</title", re.IGNORECASE | re.DOTALL)


def require_checkpoint_file(path: Path) -> None:
    """Raises: CheckpointError if there is no file at `path`."""
    if not path.is_file():
        what = "is a folder" if path.is_dir() else "is no file" if path.exists() else "does not exist"
        raise CheckpointError(f"Checkpoint {path} {what}; expected a .pt, .pth, .pkl, .tar or .safetensors file.")


def file_kind(path: Path) -> FileKind:
    """Return what the file at `path` is. Raises: OSError if it cannot be read."""
    size = path.stat().st_size
    with path.open("rb") as file:
        head = file.read(HEAD_BYTES)
    if not head:
        return FileKind("empty (0 bytes)", "Copy or save it again.")
    if head.startswith(b"PK\x03\x04"):
        return _zip_kind(path, size)
    known = next((kind for start, kind in SIGNATURES.items() if head.startswith(start)), None)
    return known or _binary_kind(head) or _text_kind(head, size) or _unknown_kind(head, size)


def _zip_kind(path: Path, size: int) -> FileKind:
    try:
        with zipfile.ZipFile(path) as archive:
            names = archive.namelist()
    except Exception:  # on a damaged table of contents zipfile raises more than BadZipFile
        what = f"a ZIP archive cut short or damaged ({size} bytes, without the table of contents that ends one)"
        return FileKind(what, "Copy or save it again.")
    ends = {name.rpartition("/")[2] for name in names}
    if {"constants.pkl", "data.pkl"} <= ends:
        return FileKind("a TorchScript archive of torch.jit.save")
    if "data.pkl" in ends:
        return TORCH_SAVE
    if "manifest.json" in names:
        return BUNDLE
    more = ", ..." if len(names) > 2 else ""
    listed = ", ".join(map(_shown, names[:2])) + more or "nothing"
    return FileKind(f"a ZIP archive that holds {listed}", "Unpack it first.")


def _binary_kind(head: bytes) -> FileKind | None:
    if head.startswith(TORCH_LEGACY) or TORCH_LEGACY.startswith(head):
        return TORCH_SAVE
    if head[0] == 0x80 and head[1:2] in (b"\2", b"\3", b"\4", b"\5"):
        return PICKLE
    if head[7:9] == b"\0{":  # eight bytes of length, little-endian, then the header as JSON
        return SAFETENSORS
    if ONNX.match(head):
        return FileKind("an ONNX graph", "Give the PyTorch checkpoint that it was exported from.")
    if head[257:262] == b"ustar":
        return FileKind("a tar archive", "Unpack it first.")
    return None


def _text_kind(head: bytes, size: int) -> FileKind | None:
    if HTML.match(head):
        title = TITLE.search(head)
        named = f" titled {_shown(title[1].decode('utf-8', 'replace'))!r}" if title else ""
        return FileKind(f"a web page{named}, as a failed download leaves", "Download the file itself.")
    if head.startswith(b"version https://git-lfs"):
        return FileKind(
            f"a Git LFS pointer ({size} bytes in place of the file)", "Fetch the file itself: git lfs pull."
        )
    text = head.decode("utf-8", "ignore")  # the last character may be cut
    if len(text.encode()) < len(head) - 3 or not all(c.isprintable() or c.isspace() for c in text):
        return None
    return FileKind(f"text that begins with {_shown(text)!r}")


def _unknown_kind(head: bytes, size: int) -> FileKind:
    if not any(head):
        what = f"{size} bytes, the first {len(head)} of them zero, as a copy that broke off leaves"
        return FileKind(what, "Copy or save it again.")
    return FileKind(f"of no known kind ({size} bytes that begin with {head[:8].hex(' ')})")


def _shown(text: str) -> str:
    line = " ".join(text[:400].split())
    printable = "".join(c if c.isprintable() else "?" for c in line)
    return printable if len(printable) <= SHOWN_CHARACTERS else printable[:SHOWN_CHARACTERS] + "..."
