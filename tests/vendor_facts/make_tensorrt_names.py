"""Write tensorrt_names.json: the names in NVIDIA's Python bindings of TensorRT, for the versions given.

python tests/vendor_facts/make_tensorrt_names.py 12:10.3.0 13:11.4.0.106        CUDA version : TensorRT version

The packages tensorrt-cu*-bindings hold the bindings without TensorRT itself. They load beside libraries of its names
with the nine functions they are linked to: no GPU, driver or TensorRT is needed, but pip and a C compiler are.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

FUNCTIONS = (
    "createInferBuilder_INTERNAL",
    "createInferRefitter_INTERNAL",
    "createInferRuntime_INTERNAL",
    "createNvOnnxParserRefitter_INTERNAL",
    "createNvOnnxParser_INTERNAL",
    "getBuilderPluginRegistry",
    "getNvOnnxParserVersion",
    "getPluginRegistry",
    "initLibNvInferPlugins",
)
LISTED = """
import json, inspect, tensorrt_bindings as trt

def own(holder):
    return sorted(name for name in dir(holder) if not name.startswith("_"))

def classes(holder, prefix=""):
    for name in own(holder):
        kind = getattr(holder, name)
        if inspect.isclass(kind) and not issubclass(kind, trt.ILayer) and kind.__module__.startswith("tensorrt"):
            yield prefix + name, own(kind)
            yield from classes(kind, f"{prefix}{name}.")

print(json.dumps({"version": trt.__version__, "module": own(trt), "classes": dict(classes(trt))}))
"""


def names(cuda: str, version: str) -> dict[str, object]:
    """Return version, module names and the members of each class but the layers'."""
    with tempfile.TemporaryDirectory() as folder:
        package = f"tensorrt-cu{cuda}-bindings=={version}"
        pip = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--only-binary=:all:", "--dest", folder]
        subprocess.run([*pip, package], check=True)
        zipfile.ZipFile(next(Path(folder).glob("*.whl"))).extractall(folder)
        source = Path(folder, "stand_in.c")
        source.write_text("".join(f"void *{name}(void) {{ return 0; }}\n" for name in FUNCTIONS))
        for library in ("nvinfer", "nvinfer_plugin", "nvonnxparser"):
            file = f"lib{library}.so.{version.partition('.')[0]}"
            command = ["cc", "-shared", "-fPIC", "-o", f"{folder}/{file}", str(source), f"-Wl,-soname,{file}"]
            subprocess.run(command, check=True)
        env = {**os.environ, "LD_LIBRARY_PATH": folder, "PYTHONPATH": folder}
        done = subprocess.run([sys.executable, "-c", LISTED], env=env, check=True, capture_output=True, text=True)
        return json.loads(done.stdout)


if __name__ == "__main__":
    found = [names(*argument.split(":")) for argument in sys.argv[1:]]
    lines = [
        f"{json.dumps(each['version'])}: {json.dumps({k: each[k] for k in ('module', 'classes')})}" for each in found
    ]
    Path(__file__).with_name("tensorrt_names.json").write_text("{\n" + ",\n".join(lines) + "\n}\n")
