from __future__ import annotations

import pytest

from ran_deploy.errors import ConfigError
from ran_deploy.targets import TARGETS, lowest_capability, opset_limit, target_from_text


@pytest.mark.parametrize(
    ("text", "backend", "version", "capability"),
    [
        ("tensorrt-11.4:sm90", "tensorrt", (11, 4), (9, 0)),
        ("tensorrt-10.3.0.30:sm87", "tensorrt", (10, 3, 0, 30), (8, 7)),
        ("tensorrt-10.13", "tensorrt", (10, 13), None),
        ("tensorrt-rtx-1.7:sm120", "tensorrt-rtx", (1, 7), (12, 0)),
        ("openvino-2026.4", "openvino", (2026, 4), None),
        ("onnxruntime-1.32", "onnxruntime", (1, 32), None),
        ("jetpack-6.2", "tensorrt", (10, 3), (8, 7)),
        ("jetpack-5.1", "tensorrt", (8, 5), None),
        ("jetpack-5.0", "tensorrt", (8, 4), None),
        ("jetpack-6.0", "tensorrt", (8, 6), (8, 7)),
        ("jetpack-7.0", "tensorrt", (10, 13), (11, 0)),
        ("jetpack-7.1", "tensorrt", (10, 13), (11, 0)),
        ("jetpack-7.2", "tensorrt", (10, 16), None),
    ],
)
def test_a_target_names_engine_version_and_gpu(text, backend, version, capability):
    target = target_from_text(text)
    assert (target.name, target.backend, target.version, target.capability) == (text, backend, version, capability)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "jetpack-7.9",
        "tensorrt",
        "tensorrt-11",
        "tensorrt-11.4:90",
        "tensorrt-11.4:sm9",
        "openvino-2026.4:sm90",
        "x-1.2",
    ],
)
def test_what_is_not_known_is_refused_with_what_is(text):
    with pytest.raises(ConfigError, match=r"jetpack-6\.2.*tensorrt-X\.Y:smNN"):
        target_from_text(text)


@pytest.mark.parametrize(
    ("text", "nearest"),
    [
        ("jetpack-6.2.1", "jetpack-6.2"),
        ("JetPack 6.2", "jetpack-6.2"),
        ("jetpack5.1", "jetpack-5.1"),
        ("jetpack-5.0.2", "jetpack-5.0"),
    ],
)
def test_the_nearest_name_comes_first(text, nearest):
    with pytest.raises(ConfigError, match=rf"^No target '{text}' is known; nearest is {nearest}\. Known are"):
        target_from_text(text)


def test_what_is_like_no_name_has_no_nearest():
    with pytest.raises(ConfigError, match=r"^No target 'windows' is known\. Known are"):
        target_from_text("windows")


def test_every_row_is_under_its_own_name():
    assert all(name == target.name for name, target in TARGETS.items())


@pytest.mark.parametrize(
    ("version", "expected"),
    [((8, 4), None), ((8, 5), (17, True)), ((8, 6, 1), (17, True)), ((10, 3), (17, False)), ((11, 2), (24, False))],
)
def test_the_limit_of_a_release_that_no_source_names_is_only_a_floor(version, expected):
    assert opset_limit(version) == expected


@pytest.mark.parametrize(
    ("version", "lowest"), [((8, 6), None), ((10, 4), (7, 0)), ((10, 5), (7, 5)), ((11, 4), (7, 5))]
)
def test_volta_left_with_tensorrt_10_5(version, lowest):
    assert lowest_capability(version) == lowest
