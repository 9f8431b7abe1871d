"""INT8 of ran-deploy against NNCF, ONNX Runtime and ModelOpt: same checkpoints, calibration and test images.

    python benchmarks/int8_accuracy.py CHECKPOINT ... --data FASHION_MNIST [--latency 200]

Every peer starts from the graph of our FP32 export, which passes have cleaned (uint8 NHWC in, logits out), and sees
the calibration images that ours does. Graphs are compared on like evaluators only: NNCF's with ours in OpenVINO, ONNX
Runtime's with ours in ONNX Runtime, and those meant for TensorRT evaluated exactly as written, node by node. Figures
are against the FP32 graph. Prints Markdown; says on standard error what it does. One line of JSON is added to
OUTPUT/rows.jsonl (and latency.jsonl) for each graph as it is measured: a run that was stopped goes on where it was.
Times are medians in one process, graphs interleaved, over ours: measure them on a quiet machine. Exit status 1 if a
peer is significantly better at equal or lower latency, or at a latency that was not measured.

Peers have environments of their own, below --peers-dir (a row says so where one is missing):

    PEERS=~/.cache/ran-deploy-peers
    python3 -m venv $PEERS/nncf
    $PEERS/nncf/bin/pip install nncf==3.4.0 openvino==2026.4.1
    python3 -m venv $PEERS/onnxruntime
    $PEERS/onnxruntime/bin/pip install onnxruntime==1.32.0 onnx==1.23.2 sympy==1.14.0
    python3 -m venv $PEERS/modelopt
    $PEERS/modelopt/bin/pip install 'nvidia-modelopt[onnx]==0.47.0' torch==2.13.0
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from peers.evaluation import EVALUATORS, TIMED, graph_bytes, interleaved, logits_of, tensorrt_rtx_verdict
from peers.nets import DIALECTS, Net, digest, our_graph, prepare_net, save, say
from peers.processes import (
    PEERS,
    SCRIPTS,
    VARIANTS,
    PeerError,
    Variant,
    default_peers_dir,
    install_command,
    quantize,
    versions,
)
from peers.tables import OURS, LatencyRow, Row, Store, means, table, verdict_line
from peers.verdicts import Outputs, Verdict, judged

from ran_deploy.bundle import sha256_of
from ran_deploy.datasets import Split, open_dataset
from ran_deploy.errors import RanDeployError
from ran_deploy.runtime.backends.host import cpu_instructions
from ran_deploy.verification.metrics import agreeing, error_sums, logit_errors
from ran_deploy.verification.statistics import PairedOutcome
from ran_deploy.workflows.exporting.versions import tool_versions

CALIBRATION = Path(__file__).parents[1] / "examples" / "fashion_mnist" / "calibration.npz"
BATCHES = (1, 8)


def peer_row(net: Net, variant: Variant, peers_dir: Path, store: Store[Row]) -> Row:
    """Have a peer quantize unless it has done so already, and measure its graph."""
    row = Row(key="", checkpoint=net.name, variant=variant.name, evaluator=variant.evaluator)
    try:
        row = replace(row, versions=versions(variant.peer, peers_dir))
        graph = net.folder / peer_graph(net, variant, row.versions)
        if not graph.exists():
            say(f"{net.name}: {variant.name}: quantizing")
            quantize(variant, peers_dir, net.reference, net.calibration, graph)
    except PeerError as exc:
        say(f"{net.name}: {variant.name}: {exc}")
        if not row.versions:
            say(f"  install it: {install_command(variant.peer, peers_dir)}")
        row = replace(row, key=digest(net.name, variant.name, "no graph"), problem=str(exc))
        store.add(row)
        return row
    return measured(net, graph, row, store)


def peer_graph(net: Net, variant: Variant, found: dict[str, str]) -> str:
    """Return the file name of a peer's graph: another for everything that it depends on."""
    inputs = [sha256_of(path.read_bytes()) for path in (net.reference, net.calibration)]
    given = digest(inputs, (SCRIPTS / PEERS[variant.peer].script).read_text(), found, variant.argument)
    return f"{variant.peer}-{variant.argument.replace(' ', '-')}-{given}{variant.suffix}"


def our_row(net: Net, evaluator: str, store: Store[Row]) -> Row:
    """Measure our graph for this evaluator."""
    row = Row(key="", checkpoint=net.name, variant=OURS, evaluator=evaluator)
    return measured(net, our_graph(net.folder, evaluator), row, store)


def measured(net: Net, graph: Path, row: Row, store: Store[Row]) -> Row:
    """Return the row with its figures, from the store if this very graph was measured before."""
    content = [sha256_of(path.read_bytes()) for path in (graph, graph.with_suffix(".bin")) if path.exists()]
    row = replace(row, tools={**tool_versions(), "CPU": cpu_instructions()})
    key = digest(net.name, row.variant, row.evaluator, content, sha256_of(net.images.tobytes()), row.tools)
    known = store.get(key)
    if known is not None and not known.problem and (net.folder / known.logits).exists():
        return replace(known, graph=graph.name)
    say(f"{net.name}: {row.variant}: {len(net.images):,} images, {row.evaluator}")
    row = replace(row, key=key, graph=graph.name)
    try:
        logits = logits_of(EVALUATORS[row.evaluator](graph), net.images)
        row = replace(with_figures(row, net, logits), logits=f"logits-{key}.npy")
        row = replace(row, graph_bytes=graph_bytes(graph), tensorrt_rtx=tensorrt_rtx_verdict(graph))
        save(net.folder / row.logits, logits)
    except RanDeployError as exc:
        say(f"{net.name}: {row.variant}: {exc}")
        row = replace(row, problem=f"failed: {exc}")
    store.add(row)
    return row


def with_figures(row: Row, net: Net, logits: np.ndarray) -> Row:
    """Return the row with how far `logits` are from FP32's."""
    right, was_right = logits.argmax(axis=1) == net.labels, net.expected.argmax(axis=1) == net.labels
    lost, gained = int((was_right & ~right).sum()), int((right & ~was_right).sum())
    outcome = PairedOutcome(images=len(logits), lost=lost, gained=gained)
    errors = logit_errors(error_sums(net.expected, logits))
    return replace(
        row,
        images=len(logits),
        fp32_top1=100 * float(was_right.mean()),
        top1=100 * float(right.mean()),
        drop_pp=outcome.drop_pp,
        drop_ci95_pp=outcome.drop_ci95_pp,
        agreement=100 * float(agreeing(net.expected, logits).mean()),
        sqnr_db=errors.sqnr_db,
        relative_l2=errors.relative_l2,
    )


def latency_rows(net: Net, rows: Sequence[Row], rounds: int, store: Store[LatencyRow]) -> list[LatencyRow]:
    """Time all graphs of each evaluator that is an engine, at each batch size."""
    found = []
    for evaluator in TIMED:
        graphs = {r.variant: net.folder / r.graph for r in rows if r.evaluator == evaluator and not r.problem}
        contents = {name: sha256_of(path.read_bytes()) for name, path in graphs.items()}
        for batch in BATCHES:
            keys = {name: digest(net.name, name, evaluator, batch, rounds, contents) for name in graphs}
            if not all(store.get(key) for key in keys.values()):
                say(f"{net.name}: times in {evaluator}, batch {batch}")
                timings = interleaved(graphs, evaluator, net.images[:batch], rounds)
                ours = timings[OURS].latency_ms.p50
                for name, timing in timings.items():
                    median = timing.latency_ms.p50
                    row = LatencyRow(
                        key=keys[name],
                        checkpoint=net.name,
                        variant=name,
                        evaluator=evaluator,
                        batch=batch,
                        rounds=rounds,
                        median_ms=median,
                        ratio=median / ours,
                        noisy=timing.noisy,
                    )
                    store.add(row)
            found += [row for row in map(store.get, keys.values()) if row is not None]
    return found


def verdicts(nets: Sequence[Net], rows: Sequence[Row], latencies: Sequence[LatencyRow]) -> dict[Variant, Verdict]:
    """Judge every peer over the checkpoints that it has a graph of."""
    by_place = {(row.checkpoint, row.variant, row.evaluator): row for row in rows if not row.problem}
    found = {}
    for variant in VARIANTS:
        outputs = []
        for net in nets:
            peer = by_place.get((net.name, variant.name, variant.evaluator))
            own = by_place.get((net.name, OURS, variant.evaluator))
            if peer and own:
                logits = (np.load(net.folder / row.logits) for row in (own, peer))
                outputs.append(Outputs(net.expected, *logits))
        ratios = [r for r in latencies if (r.variant, r.evaluator) == (variant.name, variant.evaluator)]
        if outputs:
            by_batch = [[row.ratio for row in ratios if row.batch == batch] for batch in BATCHES]
            found[variant] = judged(outputs, tuple(float(np.mean(group)) for group in by_batch if group))
    return found


def show(nets: Sequence[Net], rows: Sequence[Row], latencies: Sequence[LatencyRow]) -> bool:
    """Print tables and verdicts; return whether no peer is better, or may be."""
    for net in nets:
        own = [row for row in rows if row.checkpoint == net.name]
        top1 = next((f", FP32 {row.fp32_top1:.2f} %" for row in own if not row.problem), "")
        print(f"\n{net.name}: {len(net.images):,} test images{top1}\n")
        print(table(own, [row for row in latencies if row.checkpoint == net.name]))
    if len(nets) > 1:
        print(f"\nMeans over checkpoints\n\n{means(rows)}")
    print("\nPeers against ours, on the same evaluator\n")
    found = verdicts(nets, rows, latencies)
    for variant, verdict in found.items():
        print(verdict_line(variant.name, variant.evaluator, verdict))
    if any(row.noisy for row in latencies):
        print("\nWarning: times varied by more than 10 %: the machine was busy. Measure them again on a quiet one.")
    return all(verdict.claim_holds for verdict in found.values())


def parsed() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("checkpoints", type=Path, nargs="+", metavar="CHECKPOINT")
    parser.add_argument("--data", type=Path, required=True, help="Fashion-MNIST; its test images are used")
    parser.add_argument("--images", type=int, default=10_000, help="test images (default %(default)s)")
    parser.add_argument("--calibration", type=Path, default=CALIBRATION)
    parser.add_argument("--calibration-images", type=int, default=512)
    parser.add_argument("--peers", nargs="*", choices=sorted(PEERS), default=sorted(PEERS), metavar="PEER")
    parser.add_argument(
        "--latency", type=int, default=0, metavar="ROUNDS", help="also measure times, in so many rounds"
    )
    parser.add_argument("--peers-dir", type=Path, default=default_peers_dir())
    parser.add_argument("--output", type=Path, help="graphs, logits and rows (default PEERS_DIR/results)")
    return parser.parse_args()


def main() -> int:
    options = parsed()
    output = options.output or options.peers_dir / "results"
    for path, split in ((options.data, Split.TEST), (options.calibration, Split.TRAIN)):
        open_dataset(path, split)  # raises before minutes of work
    output.mkdir(parents=True, exist_ok=True)
    store, times = Store(output / "rows.jsonl", Row), Store(output / "latency.jsonl", LatencyRow)
    nets: list[Net] = []
    rows: list[Row] = []
    latencies: list[LatencyRow] = []
    for checkpoint in options.checkpoints:
        net = prepare_net(checkpoint, output, options)
        found = [our_row(net, evaluator, store) for evaluator in DIALECTS]
        found += [peer_row(net, v, options.peers_dir, store) for v in VARIANTS if v.peer in options.peers]
        if options.latency:
            latencies += latency_rows(net, found, options.latency, times)
        nets.append(net)
        rows += found
    return 0 if show(nets, rows, latencies) else 1


if __name__ == "__main__":
    try:
        sys.exit(main())
    except RanDeployError as exc:
        print(f"int8_accuracy: {exc}", file=sys.stderr)
        sys.exit(exc.exit_status)
    except KeyboardInterrupt:
        print("int8_accuracy: interrupted; the same command goes on from here", file=sys.stderr)
        sys.exit(130)
