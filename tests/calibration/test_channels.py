from __future__ import annotations

import numpy as np
import pytest

from ran_deploy.calibration import collect_channel_sizes
from ran_deploy.errors import CalibrationError


def test_sizes_are_by_channel_over_all_images_however_they_arrive(rng):
    images = rng.normal(size=(21, 5, 4, 3)).astype(np.float32)

    def run(batch):
        return {"maps": batch, "rows": batch[:, :, 0, 0]}

    seen = []
    for step in (1, 4, 21):
        batches = [images[i : i + step] for i in range(0, 21, step)]
        found = collect_channel_sizes(run, batches, progress=seen.append)
        np.testing.assert_array_equal(found["maps"].largest, np.abs(images).max(axis=(0, 2, 3)))
        np.testing.assert_array_equal(found["rows"].largest, np.abs(images[:, :, 0, 0]).max(axis=0))
        np.testing.assert_allclose(found["maps"].mean_square, (images.astype(np.float64) ** 2).mean(axis=(0, 2, 3)))
        np.testing.assert_allclose(found["rows"].mean_square, (images[:, :, 0, 0].astype(np.float64) ** 2).mean(axis=0))
    assert seen == [8, 16, 21] * 3


def test_images_of_different_sizes_are_refused():
    with pytest.raises(CalibrationError, match="Prepare all with one recipe"):
        collect_channel_sizes(lambda batch: {}, [np.zeros((1, 2, 2, 3)), np.zeros((1, 2, 3, 3))])
