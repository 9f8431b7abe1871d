"""Giving a TensorRT engine that was built without weights those of the graph it was built from.

Sources: https://docs.nvidia.com/deeplearning/tensorrt/latest/inference-library/refitting-engines.html, and
samples/python/sample_weight_stripping of NVIDIA/TensorRT.
"""

from __future__ import annotations

from typing import Any

from ran_deploy.errors import EngineMismatchError
from ran_deploy.vendors import LogCollector, one_line, parser_error

__all__ = ["refit_engine"]


def refit_engine(trt: Any, log: LogCollector, engine: Any, graph: bytes) -> None:
    """Give `engine` every weight it lacks, from a serialised ONNX graph, before a context is made of it.

    Raises: EngineMismatchError unless it has all of them then: what is missing would be read from memory nobody wrote.
    """
    log.take_errors()
    reason = _refit(trt, log, engine, graph)
    if reason is not None:
        raise EngineMismatchError(
            f"{trt.__name__} {trt.__version__} cannot give this engine its weights: {reason}. Build it again on this "
            "machine with ran-build, without --strip-weights if that does not help."
        )


def _refit(trt: Any, log: LogCollector, engine: Any, graph: bytes) -> str | None:
    """Return why it failed, None if it did not."""
    try:
        refitter = trt.Refitter(engine, log.trt_logger)
    except Exception as exc:  # for an engine with weights of its own, the binding's factory gives None: a TypeError
        return log.take_errors() or one_line(exc)
    parser = trt.OnnxParserRefitter(refitter, log.trt_logger)  # holds the weights until they are on the device
    supplied = parser.refit_from_bytes(graph)
    if missing := refitter.get_missing_weights():
        return f"the graph lacks {len(missing)} of them, first {missing[0]!r}"
    if not supplied:
        return parser_error(parser.get_error(0)) if parser.num_errors else log.take_errors() or "no reason given"
    return None if refitter.refit_cuda_engine() else log.take_errors() or "no reason given"
