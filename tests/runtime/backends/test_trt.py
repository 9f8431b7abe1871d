from __future__ import annotations

import pytest

from ran_deploy.errors import BackendUnavailableError
from ran_deploy.runtime.backends import open_runner, unavailable_reason


@pytest.mark.parametrize("backend", ["tensorrt", "tensorrt-rtx"])
def test_without_package_driver_or_gpu_opening_says_which_in_one_line(backend):
    reason = unavailable_reason(backend)
    if reason is None:
        pytest.skip("it runs here")
    with pytest.raises(BackendUnavailableError) as error:
        open_runner(backend, b"")
    assert str(error.value) == reason
    assert "\n" not in reason
