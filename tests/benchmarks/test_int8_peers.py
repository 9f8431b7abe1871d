from __future__ import annotations

import importlib
import json
import sys
from pathlib import Path

import numpy as np
import pytest
from onnx import TensorProto, helper
from scipy.stats import binomtest

from ran_deploy.errors import BackendUnavailableError, BuildError

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"


@pytest.fixture
def peers(monkeypatch):
    """Return what imports a module of benchmarks/peers."""
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    yield lambda name: importlib.import_module(f"peers.{name}")
    for name in [name for name in sys.modules if name.partition(".")[0] == "peers"]:
        del sys.modules[name]


def one_hot(classes) -> np.ndarray:
    return np.eye(3)[classes]


def test_agreement_is_mcnemars_exact_test_for_one_checkpoint(peers):
    verdicts = peers("verdicts")
    reference = one_hot([0] * 40)
    ours, peer = reference.copy(), reference.copy()
    ours[:3] = one_hot([1] * 3)  # only the peer agrees
    peer[3:15] = one_hot([2] * 12)  # only ours does
    ours[20], peer[20] = one_hot(1), one_hot(2)  # neither
    found = verdicts.agreement([verdicts.Outputs(reference, ours, peer)])
    assert (found.ours, found.peer) == (12, 3)
    assert found.p == pytest.approx(binomtest(3, 15).pvalue)
    assert found.peer_is == "worse"
    assert verdicts.Agreement(ours=3, peer=12).peer_is == "better"
    assert verdicts.Agreement(ours=4, peer=12).peer_is == "not told apart"


def test_an_image_counts_once_however_many_checkpoints_see_it(peers):
    verdicts = peers("verdicts")
    reference, wrong = one_hot([0] * 4), one_hot([1, 0, 0, 0])
    first = verdicts.Outputs(reference, reference, wrong)
    second = verdicts.Outputs(reference, wrong, reference)
    assert verdicts.agreement([first, first, first]) == verdicts.Agreement(ours=1, peer=0)
    assert verdicts.agreement([first, second]) == verdicts.Agreement(ours=0, peer=0)
    assert verdicts.agreement([second, second, first]) == verdicts.Agreement(ours=0, peer=1)


def test_sqnr_gain_of_a_peer_with_a_tenth_of_the_error_is_20_db(peers, rng):
    verdicts = peers("verdicts")
    reference, error = rng.normal(size=(300, 10)), rng.normal(size=(300, 10))
    found = verdicts.sqnr_gain([verdicts.Outputs(reference, reference + error, reference + error / 10)])
    assert found.db == pytest.approx(20)
    assert found.low == pytest.approx(20)  # image by image the same gain: resampling changes nothing
    assert found.peer_is == "better"


def test_sqnr_interval_is_the_normal_one_for_many_images(peers, rng):
    """Delta method: the variance of 10 log10(mean(a) / mean(b)) is that of (a / mean(a) - b / mean(b)) * 10 / ln 10."""
    verdicts = peers("verdicts")
    reference = np.zeros((2000, 4))
    ours, peer = rng.normal(size=reference.shape), rng.normal(size=reference.shape)
    found = verdicts.sqnr_gain([verdicts.Outputs(reference, ours, peer)])
    a, b = (ours**2).sum(axis=1), (peer**2).sum(axis=1)
    spread = 10 / np.log(10) * np.std(a / a.mean() - b / b.mean()) / np.sqrt(len(a))
    assert found.low == pytest.approx(found.db - 1.96 * spread, abs=0.1 * spread + 0.01)
    assert found.high == pytest.approx(found.db + 1.96 * spread, abs=0.1 * spread + 0.01)


def test_outputs_without_error_are_refused(peers, rng):
    verdicts = peers("verdicts")
    reference = rng.normal(size=(5, 3))
    with pytest.raises(ValueError, match="float graph"):
        verdicts.sqnr_gain([verdicts.Outputs(reference, reference + 1, reference)])


@pytest.mark.parametrize(
    ("better", "ratios", "holds"),
    [
        (False, (), True),
        (False, (0.5,), True),
        (True, (), None),
        (True, (1.3, 1.2), True),
        (True, (1.3, 1.01), False),
        (True, (0.9, 1.2), False),
    ],
)
def test_the_claim_fails_only_for_a_better_peer_that_is_no_slower(peers, rng, better, ratios, holds):
    verdicts = peers("verdicts")
    reference, error = rng.normal(size=(50, 3)), rng.normal(size=(50, 3)) * 1e-3
    peer = reference + error * (0.5 if better else 2)
    assert verdicts.judged([verdicts.Outputs(reference, reference + error, peer)], ratios).claim_holds is holds


def test_a_store_passes_over_a_line_cut_short_and_takes_the_last_of_each_key(peers, tmp_path):
    tables = peers("tables")
    path = tmp_path / "rows.jsonl"
    store = tables.Store(path, tables.Row)
    for top1 in (90.0, 91.0):
        store.add(tables.Row(key="a", checkpoint="net", variant="v", evaluator="e", top1=top1))
    with path.open("ab") as stream:
        stream.write(b'{"key": "b", "checkp')  # killed here
    again = tables.Store(path, tables.Row)
    assert again.get("a").top1 == 91.0
    assert again.get("b") is None
    again.add(tables.Row(key="b", checkpoint="net", variant="v", evaluator="e"))
    assert tables.Store(path, tables.Row).get("b") is not None


def test_a_table_keeps_the_rows_that_have_no_figures(peers):
    tables = peers("tables")
    rows = [
        tables.Row(key="a", checkpoint="net", variant="ours", evaluator="OpenVINO", top1=91.25, sqnr_db=30.0),
        tables.Row(key="b", checkpoint="net", variant="peer", evaluator="OpenVINO", problem="not installed"),
    ]
    slow = tables.LatencyRow(
        key="t", checkpoint="net", variant="ours", evaluator="OpenVINO", batch=8, rounds=9, median_ms=2.0, ratio=1.0,
        noisy=True,
    )  # fmt: skip
    lines = tables.table(rows, [slow]).splitlines()
    assert len({line.count("|") for line in lines[:4]}) == 1
    assert "91.25 %" in lines[2]
    assert "1.00 (busy)" in lines[2]
    assert "not installed" in lines[3]


def test_a_peer_that_is_not_installed_is_said_to_be(peers, tmp_path):
    processes = peers("processes")
    with pytest.raises(processes.PeerError, match="not installed"):
        processes.versions("nncf", tmp_path)
    assert f"{tmp_path}/nncf/bin/pip install nncf==" in processes.install_command("nncf", tmp_path)


@pytest.fixture
def stand_in(peers, tmp_path, monkeypatch):
    """Return what makes this Python run a script of two lines in the place of a peer's."""
    processes = peers("processes")

    def make(body: str):
        (tmp_path / "peer" / "bin").mkdir(parents=True)
        (tmp_path / "peer" / "bin" / "python").symlink_to(sys.executable)
        (tmp_path / "script.py").write_text(
            f"import sys, json, pathlib\ngraph, data, output, how = sys.argv[1:]\n{body}"
        )
        monkeypatch.setattr(processes, "SCRIPTS", tmp_path)
        monkeypatch.setitem(processes.PEERS, "peer", processes.Peer("script.py", ()))
        variant = processes.Variant("Peer", "peer", "some way", "OpenVINO", ".xml")
        processes.quantize(variant, tmp_path, Path("reference"), Path("images"), tmp_path / "graph.xml")

    return make


def test_a_peers_graph_and_its_weights_come_together(stand_in, tmp_path):
    stand_in(
        "pathlib.Path(output).write_text(json.dumps([graph, data, how]))\n"
        "pathlib.Path(output).with_suffix('.bin').write_text('weights')"
    )
    given = json.loads((tmp_path / "graph.xml").read_text())
    assert given == [str(Path("reference").absolute()), str(Path("images").absolute()), "some way"]
    assert (tmp_path / "graph.bin").read_text() == "weights"


def test_what_a_peer_leaves_behind_where_it_runs_is_gone(stand_in, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    stand_in("pathlib.Path('left.over').touch(); pathlib.Path(output).touch()")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["graph.log", "graph.xml", "peer", "script.py"]


@pytest.mark.parametrize("body", ["print('first'); sys.exit('it broke')", "print('it broke')"])
def test_a_peer_that_fails_or_writes_nothing_leaves_no_graph(peers, stand_in, tmp_path, body):
    with pytest.raises(peers("processes").PeerError, match="failed: it broke"):
        stand_in(body)
    assert not (tmp_path / "graph.xml").exists()


def test_the_docstring_installs_what_the_peers_need(peers):
    text = (BENCHMARKS / "int8_accuracy.py").read_text()
    for name in peers("processes").PEERS:
        assert peers("processes").install_command(name, Path("$PEERS")).partition(" && ")[2] in text


def test_a_reason_of_tensorrt_rtx_stands_once_below_the_table(peers):
    tables = peers("tables")
    reasons = {"a": "refused: node 'x': bad", "b": "accepted", "c": "refused: other", "d": "refused: node 'x': bad"}
    rows = [
        tables.Row(key=name, checkpoint="net", variant=name, evaluator="as written", tensorrt_rtx=reason)
        for name, reason in reasons.items()
    ]
    lines = tables.table(rows, []).splitlines()
    assert [line.split("|")[-2].strip() for line in lines[2:6]] == [
        "refused [1]",
        "accepted",
        "refused [2]",
        "refused [1]",
    ]
    assert lines[-2:] == ["[1] node 'x': bad", "[2] other"]


def quantized_graph(zero_point: int) -> bytes:
    """Return Q/DQ of `image` with a zero point of this TensorProto type."""
    values = {"image": helper.make_tensor_value_info("image", TensorProto.FLOAT, ["N", 4])}
    values["logits"] = helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["N", 4])
    constants = [helper.make_tensor("s", TensorProto.FLOAT, [], [0.5]), helper.make_tensor("z", zero_point, [], [0])]
    nodes = [
        helper.make_node("QuantizeLinear", ["image", "s", "z"], ["q"]),
        helper.make_node("DequantizeLinear", ["q", "s", "z"], ["logits"]),
    ]
    graph = helper.make_graph(nodes, "g", [values["image"]], [values["logits"]], constants)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 19)], ir_version=10).SerializeToString()


@pytest.mark.parametrize(
    ("zero_point", "error", "verdict"),
    [
        (TensorProto.INT8, None, "accepted"),
        (TensorProto.UINT8, None, "accepted, but unsigned"),
        (TensorProto.INT8, BuildError("tensorrt_rtx 1 refuses the graph: node 'x': bad"), "refused: node 'x': bad"),
        (TensorProto.INT8, BuildError("tensorrt_rtx 1 cannot build it"), "refused: tensorrt_rtx 1 cannot build it"),
        (TensorProto.INT8, BackendUnavailableError("no"), "not installed"),
    ],
)
def test_what_tensorrt_rtx_says_of_a_graph(peers, monkeypatch, tmp_path, zero_point, error, verdict):
    evaluation = peers("evaluation")

    class Builder:
        def build(self, graph, options):
            if error is not None:
                raise error
            return b"engine"

    monkeypatch.setattr(evaluation, "open_builder", lambda backend: Builder())
    (tmp_path / "graph.onnx").write_bytes(quantized_graph(zero_point))
    assert evaluation.tensorrt_rtx_verdict(tmp_path / "graph.onnx") == verdict


def test_the_weights_beside_openvinos_graph_count_to_its_size(peers, tmp_path):
    (tmp_path / "graph.xml").write_bytes(bytes(10))
    (tmp_path / "graph.bin").write_bytes(bytes(100))
    (tmp_path / "other.onnx").write_bytes(bytes(7))
    evaluation = peers("evaluation")
    assert evaluation.graph_bytes(tmp_path / "graph.xml") == 110
    assert evaluation.graph_bytes(tmp_path / "other.onnx") == 7
    assert evaluation.tensorrt_rtx_verdict(tmp_path / "graph.xml") == "not ONNX"


@pytest.mark.parametrize("evaluator", ["OpenVINO", "ONNX Runtime", "as written"])
def test_evaluators_compute_what_is_written(peers, tmp_path, rng, evaluator):
    evaluation = peers("evaluation")
    (tmp_path / "graph.onnx").write_bytes(quantized_graph(TensorProto.INT8))
    images = rng.normal(scale=30, size=(51, 4)).astype(np.float32)  # one more than a batch
    logits = evaluation.logits_of(evaluation.EVALUATORS[evaluator](tmp_path / "graph.onnx"), images)
    np.testing.assert_array_equal(logits, np.clip(np.rint(images / np.float32(0.5)), -128, 127) * np.float32(0.5))


def test_graphs_are_timed_in_turns(peers, monkeypatch):
    evaluation = peers("evaluation")
    calls: list[str] = []
    closed: list[str] = []

    def opened(graph, batch):
        assert batch == 8
        return evaluation.Opened(lambda images: calls.append(graph.name), lambda: closed.append(graph.name))

    monkeypatch.setitem(evaluation.EVALUATORS, "OpenVINO", opened)
    graphs = {"a": Path("a"), "b": Path("b")}
    timings = evaluation.interleaved(graphs, "OpenVINO", np.zeros((8, 2)), rounds=3, warm_up=1)
    assert calls == ["a", "a", "b", "b", *"ab", *"ba", *"ab"]
    assert sorted(closed) == ["a", "b"]
    assert {name: len(timing.durations_ms) for name, timing in timings.items()} == {"a": 3, "b": 3}
