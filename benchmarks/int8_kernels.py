"""Count the precision in which each CPU engine of an INT8 bundle really runs its convolutions.

    python benchmarks/int8_kernels.py demo/fashion.ran

OpenVINO tells of its compiled kernels; ONNX Runtime of the operators in its optimised graph.
"""

from __future__ import annotations

import sys
from collections import Counter
from pathlib import Path

import click
import onnx

from ran_deploy.bundle import Bundle, open_bundle
from ran_deploy.converters.builders import BuildOptions, open_builder
from ran_deploy.errors import RanDeployError
from ran_deploy.vendors import import_openvino

ORT_CONVOLUTIONS = {"QLinearConv": "int8", "QGemm": "int8", "Conv": "float", "FusedConv": "float", "Gemm": "float"}


def openvino_kernels(bundle: Bundle) -> Counter[str]:
    """Return how many convolution and fully connected kernels run in each precision."""
    core = import_openvino().Core()
    graph = bundle.read(bundle.manifest.dialects["openvino"].graph)
    compiled = core.compile_model(core.read_model(graph), "CPU", {"PERFORMANCE_HINT": "LATENCY"})
    kernels: Counter[str] = Counter()
    for node in compiled.get_runtime_model().get_ordered_ops():
        info = {key: str(value.value) for key, value in node.get_rt_info().items()}
        if info.get("layerType") in ("Convolution", "FullyConnected"):
            kernels[f"{info['runtimePrecision']} ({info['primitiveType']})"] += 1
    return kernels


def onnxruntime_kernels(bundle: Bundle) -> Counter[str]:
    """Return how many convolution and fully connected operators are left in int8 and in float.

    Among them are BatchNormalizations between float tensors that it runs as depthwise convolutions; it names them so:
    onnxruntime/core/optimizer/nchwc_transformer.cc, TransformBatchNormalization.
    """
    graph = bundle.read(bundle.manifest.dialects["onnxruntime"].graph)
    engine = open_builder("onnxruntime").build(graph, BuildOptions(precision=bundle.manifest.precision))
    kernels: Counter[str] = Counter()
    for node in onnx.ModelProto.FromString(engine).graph.node:
        if node.op_type in ORT_CONVOLUTIONS:
            kind = "BatchNormalization as Conv" if "_bn_nchwc" in node.name else node.op_type
            kernels[f"{ORT_CONVOLUTIONS[node.op_type]} ({kind})"] += 1
    return kernels


@click.command()
@click.argument("bundle", type=click.Path(path_type=Path))
def main(bundle: Path) -> None:
    """Print how many kernels of BUNDLE run in each precision, for each CPU engine."""
    opened = open_bundle(bundle)
    for backend, kernels in (("openvino", openvino_kernels(opened)), ("onnxruntime", onnxruntime_kernels(opened))):
        for kind, count in kernels.most_common():
            click.echo(f"{backend:<12} {count:>4}  {kind}")


if __name__ == "__main__":
    try:
        main()
    except RanDeployError as exc:
        print(f"int8_kernels: {exc}", file=sys.stderr)
        sys.exit(exc.exit_status)
