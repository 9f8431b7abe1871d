"""What an engine consists of, summed up from the JSON of TensorRT's engine inspector.

The format: https://docs.nvidia.com/deeplearning/tensorrt/10.16.1/inference-library/engine-tools.html
TensorRT 11 splits Format/Datatype: https://docs.nvidia.com/deeplearning/tensorrt/11.0.0/api/migration/tensorrt-10x-to-11x.html
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import msgspec

from ran_deploy.errors import BuildError

__all__ = ["EngineLayer", "EngineLayers", "layers_from_inspector"]

# The words of both generations, in texts such as "Channel major FP16 format where channel % 8 == 0".
_TYPES = {
    "float": "fp32",
    "fp32": "fp32",
    "half": "fp16",
    "fp16": "fp16",
    "bf16": "bf16",
    "bfloat16": "bf16",
    "fp8": "fp8",
    "int8": "int8",
    "uint8": "uint8",
    "int4": "int4",
    "int32": "int32",
    "int64": "int64",
    "bool": "bool",
}
_TYPE = re.compile(rf"\b({'|'.join(_TYPES)})\b", re.IGNORECASE)
_WIDEST_FIRST = ("fp32", "bf16", "fp16", "fp8", "int8", "int4")
_PRODUCT = re.compile(r"conv|gemm|matmul|matrix|fullyconnected", re.IGNORECASE)
_CAST = re.compile(r"__myl_Cast(_|$)")  # what its compiler of fused kernels calls one that only casts
_ORIGIN = re.compile(r"\[ONNX Layer: ([^\]]*)\]")
_IDLE = ("noop", "constant")


@dataclass(frozen=True, kw_only=True)
class EngineLayer:
    """One kernel of an engine; `kind` is the vendor's word, types are None where the vendor says none.

    `precision` is what it computes in: the type of the weights; without weights the widest type it reads or writes.
    `origins` are the graph's nodes, weights included, it does the work of.
    """

    name: str
    kind: str
    precision: str | None
    reads: tuple[str | None, ...]
    writes: tuple[str | None, ...]
    origins: tuple[str, ...]
    product: bool  # a convolution or matrix product

    @property
    def converts(self) -> bool:
        """Whether it does nothing but change type or layout."""
        return self.kind.lower() in ("reformat", "cast") or _CAST.match(self.name) is not None

    @property
    def computes(self) -> bool:
        """Whether it is neither such a conversion nor nothing at all."""
        return not self.converts and self.kind.lower() not in _IDLE

    @property
    def conversion(self) -> str:
        """What a conversion does: 'fp32 to int8', or 'layout of int8' where the type stays."""
        reads, writes = (types[0] if types and types[0] else "unknown" for types in (self.reads, self.writes))
        return f"layout of {reads}" if reads == writes else f"{reads} to {writes}"


@dataclass(frozen=True, kw_only=True)
class EngineLayers:
    """An engine summed up. `precisions` counts the layers that compute; 'unknown' where the vendor gives no type.

    `conversions` counts those that only change type or layout. `in_fp32` names what computes in float32. Of the
    `products`, `int8_products` run in int8.
    """

    precisions: dict[str, int]
    conversions: dict[str, int]
    in_fp32: tuple[str, ...]
    fused: int  # layers that do the work of more than one node
    products: int
    int8_products: int
    layers: tuple[EngineLayer, ...]


def layers_from_inspector(text: str) -> EngineLayers:
    """Return the summary of what `get_engine_information` gives as JSON, of TensorRT 10 or 11.

    Raises: BuildError if it is not that.
    """
    try:
        found = msgspec.json.decode(text, type=dict[str, Any])["Layers"]
        layers = tuple(_layer(entry) for entry in found)
    except (msgspec.MsgspecError, KeyError, TypeError, AttributeError) as exc:
        raise BuildError(f"TensorRT's engine inspector gave no list of layers ({exc!r:.80}).") from exc
    computing = [layer for layer in layers if layer.computes]
    return EngineLayers(
        precisions=_counted(layer.precision or "unknown" for layer in computing),
        conversions=_counted(layer.conversion for layer in layers if layer.converts),
        in_fp32=tuple(layer.name for layer in computing if layer.precision == "fp32"),
        fused=sum(len(layer.origins) > 1 for layer in computing),
        products=sum(layer.product for layer in computing),
        int8_products=sum(layer.product and layer.precision == "int8" for layer in computing),
        layers=layers,
    )


def _layer(entry: str | Mapping[str, Any]) -> EngineLayer:
    """Return one entry; it is a bare name unless the engine was built with detailed profiling verbosity."""
    if isinstance(entry, str):
        entry = {"Name": entry}
    kind = entry.get("LayerType", "")
    reads, writes = (tuple(_tensor_type(each) for each in entry.get(side, ())) for side in ("Inputs", "Outputs"))
    weights = next((_type_in(str(value.get("Type"))) for key, value in entry.items() if _is_weights(key, value)), None)
    product = weights is not None or _PRODUCT.search(kind) is not None
    first = reads[0] if reads else None
    return EngineLayer(
        name=entry["Name"],
        kind=kind,
        precision=(weights or first) if product else _widest((*reads, *writes)),
        reads=reads,
        writes=writes,
        origins=_origins(entry),
        product=product,
    )


def _is_weights(key: str, value: object) -> bool:
    return key.endswith("Weights") and isinstance(value, Mapping)  # ConvWeights where a pooling is fused


def _tensor_type(tensor: Mapping[str, Any]) -> str | None:
    fields = {key.lower(): str(value) for key, value in tensor.items()}  # Datatype and DataType are both in use
    return _type_in(fields.get("datatype") or fields.get("format/datatype", ""))


def _type_in(text: str) -> str | None:
    match = _TYPE.search(text)
    return None if match is None else _TYPES[match[1].lower()]


def _widest(types: Iterable[str | None]) -> str | None:
    found = set(types)
    return next((each for each in _WIDEST_FIRST if each in found), next((each for each in found if each), None))


def _origins(entry: Mapping[str, Any]) -> tuple[str, ...]:
    named = tuple(dict.fromkeys(_ORIGIN.findall(entry.get("Metadata", ""))))
    return named or tuple(entry["Name"].split(" + "))


def _counted(words: Iterable[str]) -> dict[str, int]:
    return dict(Counter(words).most_common())
