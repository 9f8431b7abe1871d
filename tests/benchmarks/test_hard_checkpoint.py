from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest

torch = pytest.importorskip("torch")

from ran_deploy.errors import CheckpointError, ConfigError  # noqa: E402
from ran_deploy.models.units import PreActivationUnit  # noqa: E402

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "hard_checkpoint.py"


@pytest.fixture(scope="module")
def script():
    spec = importlib.util.spec_from_file_location("hard_checkpoint", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def network():
    torch.manual_seed(0)
    units = torch.nn.Sequential(
        torch.nn.Conv2d(3, 8, 1), PreActivationUnit(8, 16, 2), PreActivationUnit(16, 16), torch.nn.Flatten()
    )
    for module in units.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            torch.nn.init.uniform_(module.weight, 0.5, 2)
            torch.nn.init.normal_(module.bias)
    return units.eval()


def middle(network, image):
    unit = network[1]
    return unit.bn2(unit.conv1(unit.bn1(network[0](image)).relu())).relu()


@pytest.mark.parametrize("factor", [64, 1 / 32])
def test_two_channels_stand_out_and_the_outputs_are_the_same_bit_for_bit(script, network, factor):
    twin = script.hardened(network, factor, channels=2, seed=3)
    image = torch.randn(5, 3, 12, 10)
    with torch.inference_mode():
        assert torch.equal(network(image), twin(image))
        ratios = middle(twin, image).amax((0, 2, 3)) / middle(network, image).amax((0, 2, 3))
    assert sorted(ratios.tolist()) == sorted([1.0, 1.0, factor, factor])
    script.require_equal(network, twin, (12, 10))


def test_the_seed_decides_which_channels(script, network):
    first, again, other = (script.hardened(network, 64, channels=2, seed=seed) for seed in (0, 0, 1))
    weights = [twin[2].bn1.weight for twin in (first, again, other)]
    assert torch.equal(weights[0], weights[1])
    assert not torch.equal(weights[0], weights[2])


@pytest.mark.parametrize("factor", [0, -2, 3, float("inf")])
def test_other_factors_than_powers_of_two_are_refused(script, network, factor):
    with pytest.raises(ConfigError, match="expected a power of two"):
        script.hardened(network, factor, channels=2, seed=0)


def test_a_network_without_such_units_is_refused(script):
    with pytest.raises(CheckpointError, match="no pre-activation units"):
        script.hardened(torch.nn.Conv2d(3, 8, 1), 64, channels=2, seed=0)


def test_what_changes_the_outputs_is_not_written(script, network):
    twin = script.hardened(network, 64, channels=2, seed=0)
    with torch.no_grad():
        twin[2].conv3.weight += 0.5
    with pytest.raises(CheckpointError, match="Outputs moved by up to"):
        script.require_equal(network, twin, (12, 10))
