import pytest

from ran_deploy.engine.openvino import PRECISION_HINTS, pack_openvino_engine, unpack_openvino_engine
from ran_deploy.errors import EngineMismatchError


@pytest.mark.parametrize("hint", PRECISION_HINTS)
def test_an_engine_unpacks_to_what_was_packed(hint):
    blob = bytes(range(256)) + b"\n\n"
    assert unpack_openvino_engine(pack_openvino_engine(blob, hint)) == (blob, hint)


@pytest.mark.parametrize(
    "data", [b"", b"\x08\x09", pack_openvino_engine(b"blob", "f32")[1:], b"ran-deploy openvino engine 1 f64\n"]
)
def test_anything_else_is_refused_in_one_line(data):
    with pytest.raises(EngineMismatchError, match="no OpenVINO engine of ran-deploy") as error:
        unpack_openvino_engine(data)
    assert "\n" not in str(error.value)
