from __future__ import annotations

import pytest
import torch

from ran_deploy.errors import ConfigError
from ran_deploy.models.design import Pooling
from ran_deploy.models.network import build_network
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
