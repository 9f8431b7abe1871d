"""Whether a loaded engine is the one its bundle's manifest describes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from ran_deploy.errors import BundleError
from ran_deploy.manifest import Manifest
from ran_deploy.runtime.predictor import INPUT, OUTPUT
from ran_deploy.runtime.runner import Runner, TensorSpec

__all__ = ["require_described"]


def require_described(runner: Runner, manifest: Manifest, backend: str) -> None:
    """Raises: BundleError if the engine takes images, or puts out tensors, of other shapes than the manifest says."""
    image = {INPUT: (*manifest.preprocessing.crop, 3)}
    masks = {record.output: (record.height, record.width) for record in manifest.attention}
    for verb, specs, shapes in (
        ("takes", runner.inputs, image),
        ("gives", runner.outputs, {OUTPUT: (manifest.output_size,), **masks}),
    ):
        _require(specs, shapes, f"the {backend} engine of {manifest.name} {verb}")


def _require(specs: Sequence[TensorSpec], shapes: Mapping[str, tuple[int, ...]], found: str) -> None:
    """Compare what there is with the shape of one row of each tensor. Raises: BundleError."""
    rows = {spec.name: spec.shape[1:] for spec in specs}
    for name, shape in shapes.items():
        row = rows.get(name)
        if row is not None and len(row) == len(shape) and all(n in (None, m) for n, m in zip(row, shape, strict=True)):
            continue
        actual = f"no {name!r}" if row is None else f"{name!r} as {_text(row)}"
        raise BundleError(
            f"{found[0].upper()}{found[1:]} {actual}, and its manifest.json says {_text(shape)}: the manifest is of "
            "another network, or was changed. Do not use the bundle: copy or export it again."
        )


def _text(row: Sequence[int | None]) -> str:
    """Return the shape of a batch: '(N, 32, 32, 3)'."""
    return f"({', '.join(['N', *('?' if size is None else str(size) for size in row)])})"
