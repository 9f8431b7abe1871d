from __future__ import annotations

import pickle
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from ran_deploy.errors import CheckpointError, ConfigError
from ran_deploy.models import load_checkpoint, save_checkpoint
from ran_deploy.models.network import build_network, recorded_masks
from ran_deploy.models.zoo import ARCHITECTURES, cifar, name_of
from ran_deploy.preprocessing import Preprocessing

COMPACT = ARCHITECTURES["compact-attention"].design


@pytest.fixture(scope="module")
def network():
    torch.manual_seed(1)
    module = build_network(COMPACT, 7).eval()
    for part in module.modules():
        if isinstance(part, nn.BatchNorm2d):
            nn.init.uniform_(part.running_mean, -0.1, 0.1)
            nn.init.uniform_(part.running_var, 0.5, 1.5)
    return module


def logits(module: nn.Module) -> torch.Tensor:
    images = torch.randn(2, 3, 40, 34, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        return module(images)


def saved(path: Path, content: object) -> Path:
    torch.save(content, path)
    return path


def test_half_precision_weights_become_float32(network, tmp_path):
    half = {key: v.half() if v.is_floating_point() else v for key, v in network.state_dict().items()}
    loaded = load_checkpoint(saved(tmp_path / "net.pth", half))
    assert (loaded.layout, loaded.architecture, loaded.num_classes) == ("ran-deploy", "compact-attention", 7)
    assert loaded.input_size == (32, 32)
    assert not loaded.module.training
    assert {parameter.dtype for parameter in loaded.module.parameters()} == {torch.float32}
    torch.testing.assert_close(logits(loaded.module), logits(network), rtol=1e-2, atol=1e-2)


def test_averaged_weights_are_taken_before_the_others(network, tmp_path):
    other = {key: value + 1 for key, value in network.state_dict().items()}
    path = saved(tmp_path / "both.pth", {"model": other, "ema": network.state_dict()})
    loaded = load_checkpoint(path)
    assert torch.equal(logits(loaded.module), logits(network))
    assert any("'ema'" in note for note in loaded.notes)


@pytest.mark.parametrize(
    "wrap", [lambda s: {"state_dict": s, "ema": {"decay": 0.99}}, lambda s: {"ema": {"module": s}}]
)
def test_a_container_counts_only_where_it_holds_tensors(network, tmp_path, wrap):
    loaded = load_checkpoint(saved(tmp_path / "net.pth", wrap(network.state_dict())))
    assert torch.equal(logits(loaded.module), logits(network))


@pytest.mark.parametrize("labels", ["cat,dog", "3", '["cat"]'])
def test_labels_that_do_not_fit_are_refused(network, tmp_path, labels):
    path = tmp_path / "net.safetensors"
    save_file({key: value.contiguous() for key, value in network.state_dict().items()}, path, {"labels": labels})
    with pytest.raises(CheckpointError, match="for 7 classes"):
        load_checkpoint(path)


def test_safetensors_keep_labels_and_recipe(network, tmp_path):
    labels = [f"class {i}" for i in range(7)]
    path, recipe = tmp_path / "net.safetensors", Preprocessing(crop=(32, 32), std=(0.3, 0.2, 0.1))
    save_checkpoint(path, network, architecture="compact-attention", labels=labels, preprocessing=recipe)
    loaded = load_checkpoint(path)
    assert [entry.name for entry in tmp_path.iterdir()] == [path.name]
    path.with_name("plain").touch()
    assert path.stat().st_mode == path.with_name("plain").stat().st_mode
    assert loaded.labels == tuple(labels)
    assert loaded.preprocessing == recipe
    assert torch.equal(logits(loaded.module), logits(network))


@pytest.mark.parametrize("name", ["cifar-attention-164", "attention-92", "cifar-attention-452"])
def test_our_own_layout_tells_the_design_from_its_keys(tmp_path, name):
    torch.manual_seed(0)
    with torch.device("meta"):
        module = build_network(ARCHITECTURES[name].design, 5)
    from ran_deploy.models.layouts import native

    reading = native.read({key: tuple(value.shape) for key, value in module.state_dict().items()})
    assert (reading.architecture, reading.num_classes) == (name, 5)


def test_a_design_outside_the_zoo_is_named_after_its_depth():
    assert name_of(cifar(5).design) == "attention-200"


class Bomb:
    def __reduce__(self):
        return (Path.touch, (Path(sys.prefix) / "exploded",))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "is empty"),
        (b"epoch 1, loss 0.3\n" * 50, "is text that begins"),
        (pickle.dumps({"state_dict": Bomb()}), "Python objects"),
        (pickle.dumps(Bomb()), "Python objects"),
        (b"\x89PNG\r\n\x1a\n" + bytes(200), "is a PNG image"),
    ],
    ids=["empty", "text", "bomb in a dict", "bomb", "image"],
)
@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
def test_what_is_no_checkpoint_is_refused_in_one_line(tmp_path, content, message, suffix):
    path = tmp_path / f"checkpoint{suffix}"
    path.write_bytes(content)
    with pytest.raises(CheckpointError, match=message if suffix == ".pth" else "safetensors") as caught:
        load_checkpoint(path)
    assert "\n" not in str(caught.value)
    assert not (Path(sys.prefix) / "exploded").exists()


def test_a_whole_pickled_module_is_refused_with_advice(network, tmp_path):
    path = saved(tmp_path / "module.pth", network)
    with pytest.raises(
        CheckpointError,
        match=r"Python objects \(ran_deploy\.models\.network\.ResidualAttentionNetwork\).*save model\.state_dict\(\)",
    ):
        load_checkpoint(path)


@pytest.mark.parametrize("keep", [0.3, 0.9, 0.999])
@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
def test_a_truncated_checkpoint_is_refused(network, tmp_path, keep, suffix):
    path = tmp_path / f"net{suffix}"
    if suffix == ".pth":
        torch.save(network.state_dict(), path)
    else:
        save_checkpoint(path, network, architecture="compact-attention")
    path.write_bytes(path.read_bytes()[: int(keep * path.stat().st_size)])
    with pytest.raises(CheckpointError, match=str(path)):
        load_checkpoint(path)


def test_missing_file_and_folder_are_told_apart(tmp_path):
    with pytest.raises(CheckpointError, match="does not exist"):
        load_checkpoint(tmp_path / "none.pth")
    with pytest.raises(CheckpointError, match="is a folder"):
        load_checkpoint(tmp_path)


def test_an_unknown_layout_names_the_closest_with_missing_and_unexpected_keys(network, tmp_path):
    state = network.state_dict()
    del state["_extra_state"]
    state["stages.0.0.scale"] = state.pop("stages.0.0.bn1.weight")
    with pytest.raises(CheckpointError) as caught:
        load_checkpoint(saved(tmp_path / "net.pth", state))
    message = str(caught.value)
    assert "Closest is 'ran-deploy'" in message
    assert "1 missing (stages.0.0.bn1.weight)" in message
    assert "1 unexpected (stages.0.0.scale)" in message
    assert "--model" in message


def resnet18() -> dict[str, torch.Tensor]:
    """Return a state dict with the keys of torchvision's ResNet-18, in small."""
    state = {"conv1.weight": torch.zeros(8, 3, 7, 7), "fc.weight": torch.zeros(10, 8), "fc.bias": torch.zeros(10)}
    blocks = [f"layer{stage}.{block}." for stage in range(1, 5) for block in range(2)]
    for prefix in ("", *blocks):
        for number in (1, 2) if prefix else (1,):
            state[f"{prefix}conv{number}.weight"] = torch.zeros(8, 3, 7, 7)
            state |= {f"{prefix}bn{number}.{key}": value for key, value in nn.BatchNorm2d(8).state_dict().items()}
    return state


@pytest.mark.parametrize(
    "state",
    [
        resnet18(),
        {f"bert.encoder.layer.{i}.output.dense.weight": torch.zeros(4, 4) for i in range(12)},
        {"conv1.weight": torch.zeros(6, 3, 5, 5), "fc.weight": torch.zeros(10, 6), "fc.bias": torch.zeros(10)},
    ],
    ids=["resnet", "bert", "three tensors"],
)
def test_a_foreign_network_resembles_no_known_layout(tmp_path, state):
    with pytest.raises(CheckpointError, match="resembles no known layout") as caught:
        load_checkpoint(saved(tmp_path / "net.pth", state))
    message = str(caught.value)
    assert ", ".join(list(state)[:3]) in message
    assert "--model package.module:factory" in message
    assert "Closest" not in message


@pytest.mark.parametrize("name", ["compact-attention", "attention-92", "cifar-attention-452"])
def test_a_ran_of_any_depth_resembles_its_layout_without_its_stem(tmp_path, name):
    with torch.device("meta"):
        keys = build_network(ARCHITECTURES[name].design, 5).state_dict()
    state = {key: torch.zeros(1) for key in keys if not key.startswith("stem") and key != "_extra_state"}
    with pytest.raises(CheckpointError, match="Closest is 'ran-deploy'"):
        load_checkpoint(saved(tmp_path / "net.pth", state))


def test_a_flipped_bit_is_refused(network, tmp_path):
    path = saved(tmp_path / "net.pth", network.state_dict())
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    with pytest.raises(CheckpointError, match="wrong checksum"):
        load_checkpoint(path)


@pytest.mark.parametrize(
    "change",
    [lambda t: t.to("meta"), lambda t: t.to(torch.int8), lambda t: t.to_sparse()],
    ids=["meta", "int8", "sparse"],
)
def test_weights_that_are_no_plain_floats_are_refused(network, tmp_path, change):
    path = saved(
        tmp_path / "net.pth",
        {key: change(v) if v.is_floating_point() else v for key, v in network.state_dict().items()},
    )
    with pytest.raises(CheckpointError, match=r"no plain array|holds int8; expected float32") as caught:
        load_checkpoint(path)
    assert "\n" not in str(caught.value)


def test_a_checkpoint_that_holds_itself_is_refused(tmp_path):
    content: dict[str, object] = {}
    content["state_dict"] = content
    with pytest.raises(CheckpointError, match="holds no tensors"):
        load_checkpoint(saved(tmp_path / "cycle.pth", content))


def test_nan_weights_are_refused(network, tmp_path):
    state = {key: value.clone() for key, value in network.state_dict().items()}
    state["classifier.bias"][3] = float("nan")
    with pytest.raises(CheckpointError, match=r"classifier\.bias holds NaN"):
        load_checkpoint(saved(tmp_path / "net.pth", state))


def test_a_factory_takes_any_network(tmp_path, monkeypatch):
    (tmp_path / "mynets.py").write_text(
        "from torch import nn\n"
        "def tiny():\n"
        "    return nn.Sequential(nn.Conv2d(3, 5, 3, 2), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(5, 4))\n"
        "def text():\n    return 'no module'\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    import mynets

    path = saved(tmp_path / "tiny.pth", {"state_dict": mynets.tiny().state_dict()})
    loaded = load_checkpoint(path, model="mynets:tiny", input_size=(20, 30))
    assert (loaded.layout, loaded.num_classes, loaded.input_size) == ("custom", 4, (20, 30))
    with pytest.raises(ConfigError, match="--input-size"):
        load_checkpoint(path, model="mynets:tiny")
    for bad in ("mynets:absent", "nowhere:tiny", "mynets", "mynets:text"):
        with pytest.raises(ConfigError, match="--model"):
            load_checkpoint(path, model=bad, input_size=(20, 30))


def test_masks_lie_between_zero_and_one_and_have_their_trunks_shape(network):
    with recorded_masks(network) as masks:
        logits(network)
    assert list(masks) == [f"stages.{i}.1.mask" for i in range(3)]
    assert [tuple(mask.shape) for mask in masks.values()] == [(2, 64, 20, 17), (2, 128, 10, 9), (2, 320, 5, 5)]
    for mask in masks.values():
        assert 0 < mask.min() < mask.max() < 1
    assert not network.stages[0][1].mask._forward_hooks


def test_the_stored_crop_is_the_input_size(tmp_path):
    """Not the layout's, which is a guess; what is asked for comes before both."""
    module, path = build_network(COMPACT, 3), tmp_path / "net.safetensors"
    save_checkpoint(path, module, architecture="mine", preprocessing=Preprocessing(crop=(64, 48), resize=72))
    assert load_checkpoint(path).input_size == (64, 48)
    assert load_checkpoint(path, input_size=(40, 40)).input_size == (40, 40)


def test_a_recipe_that_cannot_be_read_is_refused(network, tmp_path):
    path = tmp_path / "net.safetensors"
    save_file({key: value.contiguous() for key, value in network.state_dict().items()}, path, {"preprocessing": "{}"})
    with pytest.raises(CheckpointError, match=r"pre-processing in checkpoint .* cannot be read \(.*crop"):
        load_checkpoint(path)


def test_a_network_that_shares_only_its_depth_with_one_of_the_zoo_does_not_share_its_name(tmp_path):
    design = ARCHITECTURES["cifar-attention-56"].design
    narrow = replace(design, stages=tuple(replace(stage, width=stage.width // 2) for stage in design.stages))
    loaded = load_checkpoint(saved(tmp_path / "net.pth", build_network(narrow, 3).state_dict()))
    assert (loaded.architecture, loaded.input_size) == ("custom-attention-56", (32, 32))


def test_a_dict_that_holds_itself_ends(network, tmp_path):
    content = dict(network.state_dict())
    content["model"] = content
    assert torch.equal(logits(load_checkpoint(saved(tmp_path / "net.pth", content)).module), logits(network))


def test_no_classes_are_refused(network, tmp_path):
    state = network.state_dict()
    for key in ("classifier.weight", "classifier.bias"):
        state[key] = state[key][:0]
    with pytest.raises(CheckpointError, match="without outputs"):
        load_checkpoint(saved(tmp_path / "net.pth", state))
