from __future__ import annotations

import pytest

from ran_deploy.converters.builders.trt_inspector import inspect_engine
from ran_deploy.errors import BackendUnavailableError, BuildError


@pytest.mark.parametrize("engine", [b"", b"no engine at all"])
def test_an_engine_that_cannot_be_loaded_is_told_in_one_line(engine):
    pytest.importorskip("tensorrt_rtx")
    with pytest.raises(
        BuildError, match=r"tensorrt_rtx 1\S+ cannot load the engine here to look at its layers: "
    ) as error:
        inspect_engine("tensorrt_rtx", engine)
    assert "\n" not in str(error.value)
    assert "no reason given" not in str(error.value)


def test_without_the_package_its_name_is_told():
    with pytest.raises((BackendUnavailableError, BuildError), match="tensorrt") as error:
        inspect_engine("tensorrt", b"")
    assert "\n" not in str(error.value)
