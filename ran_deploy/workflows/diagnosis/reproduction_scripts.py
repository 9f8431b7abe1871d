"""The scripts that run a reproduction with each vendor's own API: as our builders and runners do, without them."""

from __future__ import annotations

from ran_deploy.converters.builders.ort import DISABLED_OPTIMIZERS
from ran_deploy.precision import Precision

__all__ = ["script"]

HEAD = '''"""Runs {name}.onnx on the inputs in {name}.npz and compares with the outputs expected there."""
import sys
from pathlib import Path

import numpy as np

folder = Path(__file__).parent
graph, data = folder / "{name}.onnx", np.load(folder / "{name}.npz")
feeds = {{str(name): data[f"input_{{i}}"] for i, name in enumerate(data["input_names"])}}
names = [str(name) for name in data["output_names"]]

'''

TAIL = """
wrong = False
for i, name in enumerate(names):
    expected = data[f"expected_{{i}}"].astype(np.float64)
    error = np.linalg.norm(outputs[i].astype(np.float64) - expected) / np.linalg.norm(expected)
    print(f"{{name}}: relative L2 {{error:.4g}}, at most {limit:.4g} is rounding")
    wrong |= not error <= {limit:.4g}
sys.exit(wrong)
"""

ONNXRUNTIME = """import onnxruntime

options = onnxruntime.SessionOptions()
options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_ALL
session = onnxruntime.InferenceSession(
    graph, options, providers=["CPUExecutionProvider"], disabled_optimizers=@DISABLED@
)
outputs = session.run(names, feeds)
print("onnxruntime", onnxruntime.__version__)
"""

OPENVINO = """import openvino

core = openvino.Core()
hint = @HINT@ if "BF16" in core.get_property("CPU", "OPTIMIZATION_CAPABILITIES") else "f32"
settings = {"PERFORMANCE_HINT": "LATENCY", "INFERENCE_PRECISION_HINT": hint}
model = core.compile_model(core.read_model(graph), "CPU", settings)
results = model(feeds)
outputs = [results[name] for name in names]
print("openvino", openvino.__version__)
"""

# As our own builder and runner do it: strongly typed, one profile of the batch at hand.
TENSORRT = """import @PACKAGE@ as trt
from cuda.bindings import runtime as cuda


def checked(result):
    status, *values = result
    if status != cuda.cudaError_t.cudaSuccess:
        sys.exit(f"CUDA: {status.name}")
    return values[0] if values else None


logger = trt.Logger(trt.Logger.WARNING)
builder = trt.Builder(logger)
flag = getattr(trt.NetworkDefinitionCreationFlag, "STRONGLY_TYPED", None)
network = builder.create_network(0 if flag is None else 1 << int(flag))
parser = trt.OnnxParser(network, logger)
if not parser.parse(graph.read_bytes()):
    sys.exit(parser.get_error(0).desc())
config, profile = builder.create_builder_config(), builder.create_optimization_profile()
for name, array in feeds.items():
    profile.set_shape(name, array.shape, array.shape, array.shape)
config.add_optimization_profile(profile)
runtime = trt.Runtime(logger)
engine = runtime.deserialize_cuda_engine(builder.build_serialized_network(network, config))
context = engine.create_execution_context()
stream = checked(cuda.cudaStreamCreate())
kinds, buffers = cuda.cudaMemcpyKind, {}
for name, array in feeds.items():
    array = feeds[name] = np.ascontiguousarray(array)
    context.set_input_shape(name, array.shape)
    buffers[name] = checked(cuda.cudaMalloc(array.nbytes))
    checked(cuda.cudaMemcpy(buffers[name], array.ctypes.data, array.nbytes, kinds.cudaMemcpyHostToDevice))
results = {}
for name in names:
    dtype = np.dtype(trt.nptype(engine.get_tensor_dtype(name)))
    results[name] = np.empty(tuple(context.get_tensor_shape(name)), dtype)
    buffers[name] = checked(cuda.cudaMalloc(results[name].nbytes))
for name, pointer in buffers.items():
    context.set_tensor_address(name, int(pointer))
context.execute_async_v3(int(stream))
checked(cuda.cudaStreamSynchronize(stream))
for name, array in results.items():
    checked(cuda.cudaMemcpy(array.ctypes.data, buffers[name], array.nbytes, kinds.cudaMemcpyDeviceToHost))
outputs = [results[name] for name in names]
print("@PACKAGE@", trt.__version__)
"""

SCRIPTS = {
    "onnxruntime": ONNXRUNTIME,
    "openvino": OPENVINO,
    "tensorrt": TENSORRT.replace("@PACKAGE@", "tensorrt"),
    "tensorrt-rtx": TENSORRT.replace("@PACKAGE@", "tensorrt_rtx"),
}


def script(backend: str, name: str, precision: Precision, limit: float) -> str:
    """Return a script that stands beside NAME.onnx and NAME.npz and fails if their outputs are beyond `limit`."""
    hint = "f32" if precision is Precision.FP32 else "bf16"
    body = SCRIPTS[backend].replace("@HINT@", repr(hint)).replace("@DISABLED@", repr(DISABLED_OPTIMIZERS))
    return HEAD.format(name=name) + body + TAIL.format(limit=limit)
