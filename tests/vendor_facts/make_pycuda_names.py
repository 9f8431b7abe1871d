"""Write pycuda_names.json: the public names of pycuda.driver and of its classes, as built here.

    pip install pycuda                              compiles it; needs the CUDA toolkit's headers
    python tests/vendor_facts/make_pycuda_names.py

Where there is no driver, pycuda still loads beside a library with the functions it is linked to:

    nm -D --undefined-only _driver*.so | sed -n 's/.* U \\(cu[^@]*\\).*/int \\1(void) { return 0; }/p' > stand_in.c
    cc -shared -fPIC -o libcuda.so.1 stand_in.c
    LD_PRELOAD=./libcuda.so.1 python tests/vendor_facts/make_pycuda_names.py
"""

from __future__ import annotations

import inspect
import json
from pathlib import Path

import pycuda
import pycuda.driver


def own(holder: object) -> list[str]:
    """Return the public names, without those of every integer for classes of constants."""
    return sorted(name for name in dir(holder) if not name.startswith("_") and name not in dir(int))


if __name__ == "__main__":
    module = pycuda.driver
    classes = {name: own(kind) for name in own(module) if inspect.isclass(kind := getattr(module, name))}
    facts = {"version": pycuda.VERSION_TEXT, "module": own(module), "classes": classes}
    Path(__file__).with_name("pycuda_names.json").write_text(json.dumps(facts, indent=0) + "\n")
