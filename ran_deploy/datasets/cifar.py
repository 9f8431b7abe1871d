"""CIFAR-10 and CIFAR-100 in their python (pickle) and binary versions."""

from __future__ import annotations

import pickle
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ran_deploy.datasets.dataset import ArrayDataset, Split
from ran_deploy.errors import DatasetError
from ran_deploy.preprocessing import Preprocessing

__all__ = ["find_cifar"]

PIXELS = 3 * 32 * 32  # one image: the red, the green, the blue plane
CIFAR10_TRAIN = tuple(f"data_batch_{i}" for i in range(1, 6))
# Mean and deviation of each channel over the 50,000 training images.
CIFAR10 = Preprocessing(crop=(32, 32), mean=(0.4914, 0.4822, 0.4465), std=(0.2470, 0.2435, 0.2616))
CIFAR100 = Preprocessing(crop=(32, 32), mean=(0.5071, 0.4865, 0.4409), std=(0.2673, 0.2564, 0.2762))

Batch = tuple[np.ndarray, np.ndarray]  # pixels (N, 3072), labels (N,)


@dataclass(frozen=True, kw_only=True)
class _Version:
    """The files of one published version; `names` is the one with the classes."""

    kind: str
    folder: str
    files: dict[Split, tuple[str, ...]]
    names: str
    read: Callable[[Path], Batch]
    read_names: Callable[[Path], tuple[str, ...]]
    defaults: Preprocessing


def find_cifar(path: Path, split: Split) -> ArrayDataset | None:
    """Return `split` of a CIFAR folder, or of the folder that holds it; None if `path` is something else.

    Raises: DatasetError if a file of the split is missing or damaged.
    """
    for version in VERSIONS:
        for folder in (path, path / version.folder):
            if any((folder / name).is_file() for names in version.files.values() for name in names):
                return _open(version, folder, split)
    return None


def _open(version: _Version, folder: Path, split: Split) -> ArrayDataset:
    files = [folder / name for name in version.files[split]]
    if missing := [file.name for file in files if not file.is_file()]:
        raise DatasetError(f"{folder} is {version.kind} without {', '.join(missing)}. Unpack the whole archive.")
    batches = [version.read(file) for file in files]
    names = folder / version.names
    return ArrayDataset(
        name=version.kind.split(" ")[0],
        kind=version.kind,
        images=np.concatenate([pixels for pixels, _ in batches]).reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1),
        labels=np.concatenate([labels for _, labels in batches]),
        origins=tuple((file.name, len(labels)) for file, (_, labels) in zip(files, batches, strict=True)),
        classes=version.read_names(names) if names.is_file() else None,
        defaults=version.defaults,
    )


class _ArrayUnpickler(pickle.Unpickler):
    """Builds NumPy arrays and builtin containers, and nothing else: a pickle may otherwise run any code."""

    # How NumPy pickles an array, under the names that its releases gave these functions.
    RECONSTRUCT: Any = np.empty(0).__reduce__()[0]
    ALLOWED = {
        ("numpy", "ndarray"): np.ndarray,
        ("numpy", "dtype"): np.dtype,
        ("numpy.core.multiarray", "_reconstruct"): RECONSTRUCT,
        ("numpy._core.multiarray", "_reconstruct"): RECONSTRUCT,
        ("_codecs", "encode"): lambda text, encoding: text.encode(encoding),  # bytes, in protocol 2 from Python 3
    }

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in self.ALLOWED:
            raise pickle.UnpicklingError(f"it wants to load {module}.{name}")
        return self.ALLOWED[module, name]


def _unpickled(file: Path) -> dict[str, Any]:
    try:
        with file.open("rb") as stream:
            content = _ArrayUnpickler(stream, encoding="latin1").load()
    except Exception as exc:  # damaged bytes can make the unpickler raise nearly anything
        raise DatasetError(f"{file} is not a CIFAR batch, or damaged ({exc}). Unpack the archive again.") from exc
    if not isinstance(content, dict):
        raise DatasetError(f"{file} is not a CIFAR batch: it holds a {type(content).__name__}, not a dictionary.")
    return {key.decode("latin1") if isinstance(key, bytes) else str(key): value for key, value in content.items()}


def _read_python(file: Path) -> Batch:
    content = _unpickled(file)
    pixels = content.get("data")
    labels = np.asarray(content.get("fine_labels", content.get("labels", ())))
    good = isinstance(pixels, np.ndarray) and pixels.dtype == np.uint8 and pixels.shape == (len(labels), PIXELS)
    if not good or labels.dtype.kind not in "iu":
        raise DatasetError(f"{file} is not a CIFAR batch: no uint8 'data' (N, {PIXELS}) with as many labels.")
    return pixels, labels  # type: ignore[return-value]


def _read_python_names(file: Path) -> tuple[str, ...]:
    content = _unpickled(file)
    names = content.get("fine_label_names", content.get("label_names", ()))
    return tuple(name.decode() if isinstance(name, bytes) else str(name) for name in names)


def _read_binary(file: Path, label_bytes: int) -> Batch:
    data = np.frombuffer(file.read_bytes(), np.uint8)
    record = label_bytes + PIXELS
    if data.size == 0 or data.size % record:
        raise DatasetError(f"{file} is damaged: its {data.size} bytes are no multiple of {record}. Unpack it again.")
    records = data.reshape(-1, record)
    return records[:, label_bytes:], records[:, label_bytes - 1].astype(np.int64)  # CIFAR-100: coarse, then fine label


def _read_text_names(file: Path) -> tuple[str, ...]:
    return tuple(file.read_text(encoding="utf-8", errors="replace").split())


VERSIONS = (
    _Version(
        kind="CIFAR-10 (python version)",
        folder="cifar-10-batches-py",
        files={Split.TRAIN: CIFAR10_TRAIN, Split.TEST: ("test_batch",)},
        names="batches.meta",
        read=_read_python,
        read_names=_read_python_names,
        defaults=CIFAR10,
    ),
    _Version(
        kind="CIFAR-10 (binary version)",
        folder="cifar-10-batches-bin",
        files={Split.TRAIN: tuple(f"{name}.bin" for name in CIFAR10_TRAIN), Split.TEST: ("test_batch.bin",)},
        names="batches.meta.txt",
        read=lambda file: _read_binary(file, label_bytes=1),
        read_names=_read_text_names,
        defaults=CIFAR10,
    ),
    _Version(
        kind="CIFAR-100 (python version)",
        folder="cifar-100-python",
        files={Split.TRAIN: ("train",), Split.TEST: ("test",)},
        names="meta",
        read=_read_python,
        read_names=_read_python_names,
        defaults=CIFAR100,
    ),
    _Version(
        kind="CIFAR-100 (binary version)",
        folder="cifar-100-binary",
        files={Split.TRAIN: ("train.bin",), Split.TEST: ("test.bin",)},
        names="fine_label_names.txt",
        read=lambda file: _read_binary(file, label_bytes=2),
        read_names=_read_text_names,
        defaults=CIFAR100,
    ),
)
