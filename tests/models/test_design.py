from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from ran_deploy.errors import CheckpointError, ConfigError
from ran_deploy.models.design import Design, Pooling, Stage, Stem
from ran_deploy.models.network import build_network, stored_design
from ran_deploy.models.zoo import ARCHITECTURES


@pytest.mark.parametrize("name", ["attention-56", "cifar-attention-56", "compact-attention"])
def test_the_smallest_input_is_where_pytorch_begins_to_work(name):
    design = ARCHITECTURES[name].design
    torch.manual_seed(0)
    module = build_network(design, 3).eval()
    for side in range(1, 40):
        try:
            design.check_input_size(side, 40)
            accepted = True
        except ConfigError:
            accepted = False
        try:
            with torch.no_grad():
                module(torch.zeros(1, 3, side, 40))
            works = True
        except RuntimeError:
            works = False
        assert accepted == works, f"side {side}"


def test_the_refusal_names_the_smallest_side():
    design = ARCHITECTURES["attention-56"].design
    assert design.pooling is Pooling.CEIL
    with pytest.raises(ConfigError, match=r"16x224 is too small.*smallest side it takes is 31"):
        design.check_input_size(16, 224)


STAGE = Stage(width=16, stride=1, modules=1, mask_depth=1)


@pytest.mark.parametrize(
    "number", [{"width": 0}, {"stride": 0}, {"modules": -1}, {"mask_depth": -1}, {"mask_depth": 40}]
)
def test_impossible_stages_are_refused(number):
    with pytest.raises(ConfigError):
        replace(STAGE, **number)


@pytest.mark.parametrize("numbers", [{"stages": ()}, {"stem_width": 0}, {"p": 0}, {"t": 10**9}, {"r": 10**9}])
def test_impossible_designs_are_refused(numbers):
    with pytest.raises(ConfigError):
        Design(**{"stem": Stem.CONV3, "stem_width": 8, "stages": (STAGE,), **numbers})


@pytest.mark.parametrize("kind", [torch.float16, torch.bfloat16, torch.float64])
def test_a_design_is_read_from_a_state_dict_of_which_everything_was_cast(kind):
    network = build_network(ARCHITECTURES["cifar-attention-56"].design, 3)
    assert stored_design(network.get_extra_state().to(kind)) == network.design


@pytest.mark.parametrize("stored", [torch.rand(40), torch.full((9,), 300), torch.arange(9, dtype=torch.uint8)])
def test_what_another_program_stored_beside_the_weights_is_no_design(stored):
    with pytest.raises(CheckpointError, match="network design stored in the checkpoint"):
        stored_design(stored)
