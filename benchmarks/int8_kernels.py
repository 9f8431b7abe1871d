"""Count the precision in which each CPU engine of an INT8 bundle really runs its convolutions.

    python benchmarks/int8_kernels.py demo/fashion.ran

Both profilers name the kernels that ran: see ran_deploy.runtime.profiles.
"""

from __future__ import annotations

import sys
from collections import Counter
from pathlib import Path

import click

from ran_deploy.bundle import Bundle, open_bundle
from ran_deploy.converters.builders import BuildOptions, open_builder
from ran_deploy.errors import RanDeployError
from ran_deploy.runtime.predictor import INPUT
from ran_deploy.runtime.profiles import Workload, profile_engine
from ran_deploy.workflows.engines.golden import read_golden

PRODUCTS = frozenset({"Conv", "Convolution", "FullyConnected", "FusedConv", "Gemm", "QGemm", "QLinearConv"})


def kernels(bundle: Bundle, backend: str) -> Counter[str]:
    """Return how many convolution and fully connected kernels run in each precision, with the vendor's word for it.

    Among ONNX Runtime's are BatchNormalizations between float tensors that it runs as depthwise convolutions; it names
    them so: onnxruntime/core/optimizer/nchwc_transformer.cc, TransformBatchNormalization.
    """
    graph = bundle.read(bundle.manifest.dialects[backend].graph)
    engine = open_builder(backend).build(graph, BuildOptions(precision=bundle.manifest.precision))
    feeds = {INPUT: read_golden(bundle).inputs[:1]}
    found: Counter[str] = Counter()
    for layer in profile_engine(backend, Workload(engine=engine, feeds=feeds, runs=1, warm_up=0)).layers:
        if layer.kind in PRODUCTS:
            kind = "BatchNormalization as Conv" if "_bn_nchwc" in layer.name else layer.kind
            found[f"{layer.execution} ({kind})"] += 1
    return found


@click.command()
@click.argument("bundle", type=click.Path(path_type=Path))
def main(bundle: Path) -> None:
    """Print how many kernels of BUNDLE run in each precision, for each CPU engine."""
    opened = open_bundle(bundle)
    for backend in ("openvino", "onnxruntime"):
        for kind, count in kernels(opened, backend).most_common():
            click.echo(f"{backend:<12} {count:>4}  {kind}")


if __name__ == "__main__":
    try:
        main()
    except RanDeployError as exc:
        print(f"int8_kernels: {exc}", file=sys.stderr)
        sys.exit(exc.exit_status)
