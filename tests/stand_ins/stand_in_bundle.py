"""A bundle for the stand-in of an engine: what it computes is what the golden self-test expects."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

from stand_in_tensorrt import row_sums

from ran_deploy.bundle import Bundle, open_bundle
from ran_deploy.bundle_writing import write_bundle
from ran_deploy.workflows.engines.golden import read_golden


def bundle_of_row_sums(path: Path, source: Path, **changes: Any) -> Bundle:
    """Write the bundle at `source`, without engines, to `path`; `changes` are fields of its manifest."""
    bundle = open_bundle(source)
    files = {name: bundle.read(name) for name in bundle.manifest.files if not name.startswith("engines/")}
    golden = read_golden(bundle)
    files["golden.npz"] = replace(golden, logits={**golden.logits, "tensorrt": row_sums(golden.inputs)}).to_bytes()
    write_bundle(path, replace(bundle.manifest, engines=(), **changes), files)
    return open_bundle(path)
