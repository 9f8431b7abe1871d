"""Golden inputs: of a bundle that vouches for them but holds something else, and on a GPU, whose stand-in this is."""

from __future__ import annotations

import io
from dataclasses import replace

import numpy as np
import pytest
from stand_in_tensorrt import engine_bytes

from ran_deploy.bundle import open_bundle
from ran_deploy.bundle_writing import write_bundle
from ran_deploy.errors import BundleError
from ran_deploy.manifest import BatchProfile
from ran_deploy.runtime.backends import open_runner
from ran_deploy.runtime.predictor import Predictor
from ran_deploy.workflows.engines.golden import golden_result, read_golden


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


def test_on_a_gpu_every_size_also_runs_as_the_graph_that_was_captured(demo, stand_in):
    gpu, bundle = stand_in(delay_s=0.0), open_bundle(demo.bundle)
    runner = open_runner("tensorrt", engine_bytes([(1, 8, 32)], image=(*bundle.manifest.preprocessing.crop, 3)))
    with Predictor(
        runner, bundle.manifest, "tensorrt", batch=BatchProfile(minimum=1, optimum=8, maximum=32)
    ) as predictor:
        result = golden_result(predictor, read_golden(bundle))
        assert [batch.batch_size for batch in result.batches] == [1, 17, 32]
        assert gpu.live()["executables"] == 3
        assert gpu.calls["cudaGraphLaunch"] == 30 + 1 + 1  # 32, 3 and 3 calls, the first two of each queued
        assert not result.passed  # it sums rows
