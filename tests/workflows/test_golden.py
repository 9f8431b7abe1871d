"""Golden inputs of a bundle that vouches for them but holds something else."""

from __future__ import annotations

import io
from dataclasses import replace

import numpy as np
import pytest

from ran_deploy.bundle import open_bundle, write_bundle
from ran_deploy.errors import BundleError
from ran_deploy.workflows.golden import read_golden


def without_inputs() -> bytes:
    buffer = io.BytesIO()
    np.savez(buffer, logits_pytorch=np.zeros((2, 10)))
    return buffer.getvalue()


@pytest.mark.parametrize(
    "damaged",
    [lambda data: data[:5000], lambda data: b"", lambda data: b"hello", lambda data: without_inputs()],
    ids=["cut", "empty", "text", "without inputs"],
)
def test_what_holds_no_golden_inputs_is_one_error(demo, tmp_path, damaged):
    source = open_bundle(demo.bundle)
    files = {name: source.read(name) for name in source.manifest.files if not name.startswith("engines/")}
    files["golden.npz"] = damaged(files["golden.npz"])
    write_bundle(tmp_path / "x.ran", replace(source.manifest, engines=()), files)
    with pytest.raises(BundleError, match=r"golden\.npz cannot be read .* Export it again"):
        read_golden(open_bundle(tmp_path / "x.ran"))
