"""An embedding through the whole product: a narrow FaceX-Zoo network, trained for seconds to tell clothes apart."""

from __future__ import annotations

import csv
import json
import shutil
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest

import ran_deploy
from ran_deploy.bundle import open_bundle
from ran_deploy.bundle_writing import write_bundle
from ran_deploy.datasets import Split, open_dataset
from ran_deploy.errors import ConfigError
from ran_deploy.preprocessing import prepare
from ran_deploy.verification.metrics import relative_l2, row_cosines
from ran_deploy.workflows.engines.golden import Golden, read_golden

FEATURES, STEPS = 24, 40
BACKENDS = ("openvino", "onnxruntime")


@dataclass(frozen=True)
class Faces:
    """The network's checkpoint and its bundles; `expected` are PyTorch's vectors of `images`, float32 (8, 24)."""

    checkpoint: Path
    int8: Path
    fp32: Path
    cache: Path
    images: np.ndarray
    expected: np.ndarray


def trained(path: Path, calibration: Path):
    """Save a checkpoint in FaceX-Zoo's layout; return the network and its recipe."""
    torch = pytest.importorskip("torch")
    from ran_deploy.models.layouts import facexzoo
    from ran_deploy.models.network import build_network

    torch.manual_seed(0)
    typical = facexzoo.typical().design
    modules, closing = (1, 1, 1, 0), (0, 0, 0, 1)
    stages = (
        replace(stage, width=stage.width // 16, modules=m, closing_units=c)
        for stage, m, c in zip(typical.stages, modules, closing, strict=True)
    )
    design = replace(typical, stem_width=8, stages=tuple(stages), last_map=(2, 2), t=1)
    reading, network = facexzoo._reading(design, FEATURES), build_network(design, FEATURES)
    data = open_dataset(calibration, Split.TRAIN)
    images = normalised([data.image(i) for i in range(len(data))], reading.preprocessing)
    labels = torch.tensor([data.label(i) for i in range(len(data))])
    head = torch.nn.Linear(FEATURES, 10)
    optimizer = torch.optim.Adam([*network.parameters(), *head.parameters()], lr=3e-3)
    for _ in range(STEPS):
        chosen = torch.randint(len(labels), (32,))
        scores = 8 * head(torch.nn.functional.normalize(network(images[chosen])))
        optimizer.zero_grad()
        torch.nn.functional.cross_entropy(scores, labels[chosen]).backward()
        optimizer.step()
    state = {reading.key_of(key): value for key, value in network.state_dict().items() if key != "_extra_state"}
    torch.save({"state_dict": {f"backbone.{key}": value for key, value in state.items()}}, path)
    return network.eval(), reading.preprocessing


def normalised(images, recipe):
    import torch

    pixels = np.stack([prepare(image, recipe) for image in images]) / 255
    values = (pixels - np.array(recipe.mean)) / np.array(recipe.std)
    return torch.from_numpy(values.transpose(0, 3, 1, 2).astype(np.float32))


@pytest.fixture(scope="module")
def faces(script, demo, tmp_path_factory) -> Faces:
    import torch

    folder = tmp_path_factory.mktemp("faces")
    network, recipe = trained(folder / "face.pt", demo.calibration)
    engines = ["--backend", "openvino", "--backend", "onnxruntime", "--cache-dir", folder / "cache"]
    int8 = ["--calibration-data", demo.calibration, "--calibration-images", 64]
    for name, options in (("int8", int8), ("fp32", ["--precision", "fp32"])):
        done = script("ran-export", folder / "face.pt", "-o", folder / f"{name}.ran", *options, *engines)
        assert done.returncode == 0, done.stderr
        assert f"{FEATURES} features (facexzoo layout" in done.stdout
    data = open_dataset(demo.test, Split.TEST)
    images = np.stack([data.image(i) for i in range(8)])
    with torch.no_grad():
        expected = network(normalised(images, recipe)).numpy()
    paths = {"checkpoint": folder / "face.pt", "int8": folder / "int8.ran", "fp32": folder / "fp32.ran"}
    return Faces(**paths, cache=folder / "cache", images=images, expected=expected)


def test_the_manifest_speaks_of_features(faces):
    manifest = open_bundle(faces.int8).manifest
    assert (manifest.task.value, manifest.output_size, manifest.labels) == ("embedding", FEATURES, None)
    assert all(record.label_agreement is None for record in manifest.dialects.values())
    assert [(engine.backend, engine.self_test.value) for engine in manifest.engines] == [
        (b, "passed") for b in BACKENDS
    ]


@pytest.mark.parametrize("backend", BACKENDS)
def test_fp32_gives_pytorchs_vectors_and_int8_nearly(backend, faces):
    for bundle, smallest in ((faces.fp32, 1 - 1e-6), (faces.int8, 0.8)):
        with ran_deploy.load(bundle, backend, cache_dir=faces.cache) as predictor:
            vectors = predictor.embeddings(faces.images)
            unit = predictor.embeddings(list(faces.images), normalize=True)
            raw = predictor.logits(faces.images)
        assert (vectors.dtype, vectors.shape) == (np.float32, (8, FEATURES))
        assert row_cosines(faces.expected, vectors).min() > smallest
        np.testing.assert_allclose(np.linalg.norm(unit, axis=1), 1, rtol=1e-6)
        np.testing.assert_array_equal(raw, vectors)
        if bundle == faces.fp32:
            assert relative_l2(faces.expected, vectors) < 1e-4


def test_each_kind_of_bundle_names_the_call_for_the_other(faces, demo):
    embedding = ran_deploy.load(faces.int8, cache_dir=faces.cache)
    classifier = ran_deploy.load(demo.bundle, cache_dir=demo.cache)
    with embedding, pytest.raises(ConfigError, match=r"int8 is an embedding .* call embeddings\(images\)"):
        embedding.predict(faces.images)
    with classifier, pytest.raises(ConfigError, match=r"demo is a classifier .* call predict\(images\)"):
        classifier.embeddings(faces.images)


@pytest.fixture
def mixed(demo, tmp_path) -> Path:
    """Two good images with a broken one between them."""
    (tmp_path / "mixed").mkdir()
    for number, name in ((1, "bag"), (3, "coat")):
        shutil.copy(demo.images / f"{name}.png", tmp_path / "mixed" / f"{number}.png")
    (tmp_path / "mixed" / "2.png").touch()
    return tmp_path / "mixed"


def infer(call, bundle, cache, *arguments):
    return call("ran-infer", bundle, *arguments, "--cache-dir", cache)


def test_an_array_keeps_a_row_for_each_image_and_a_list_of_their_names(call, faces, mixed, tmp_path):
    outcome = infer(call, faces.int8, faces.cache, mixed, "--output", tmp_path / "v.npy")
    vectors = np.load(tmp_path / "v.npy")
    sources = [json.loads(line) for line in (tmp_path / "v.sources.jsonl").read_text().splitlines()]
    assert outcome.status == 1
    assert "3 images, 1 failed" in outcome.err
    assert np.isnan(vectors).any(axis=1).tolist() == [False, True, False]
    assert [Path(source["source"]).name for source in sources] == ["1.png", "2.png", "3.png"]
    with ran_deploy.load(faces.int8, cache_dir=faces.cache) as predictor:
        from ran_deploy.images import read_image

        expected = predictor.embeddings([read_image(mixed / name) for name in ("1.png", "3.png")])
    np.testing.assert_allclose(vectors[[0, 2]], expected, atol=1e-3 * np.abs(expected).max())


def test_vectors_as_lines_rows_and_a_table(call, faces, mixed, tmp_path):
    options = ["--normalize", "--output", tmp_path / "v.csv"]
    assert infer(call, faces.int8, faces.cache, mixed, *options).status == 1
    with (tmp_path / "v.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["error"] != "" for row in rows] == [False, True, False]
    vector = np.array([float(rows[0][f"f{i}"]) for i in range(FEATURES)])
    assert np.linalg.norm(vector) == pytest.approx(1, rel=1e-6)
    lines = infer(call, faces.int8, faces.cache, mixed, "--json", "--normalize").out.splitlines()
    first, broken = map(json.loads, lines[:2])
    np.testing.assert_allclose(first["embedding"], vector, atol=1e-4)
    assert (broken["embedding"], "empty" in broken["error"]) == (None, True)
    table = infer(call, faces.int8, faces.cache, mixed, "--normalize").out.splitlines()
    assert f"1.png  norm 1.0000  {vector[0]:+.4f}"[:28] in table[0]
    assert "error" in table[1]


def test_arrays_of_a_classifier_hold_logits(call, demo, faces, tmp_path):
    np.save(tmp_path / "images.npy", faces.images)
    outcome = infer(call, demo.bundle, demo.cache, tmp_path / "images.npy", "--output", tmp_path / "logits.npy")
    assert outcome.status == 0
    with ran_deploy.load(demo.bundle, cache_dir=demo.cache) as predictor:
        np.testing.assert_allclose(np.load(tmp_path / "logits.npy"), predictor.logits(faces.images), atol=1e-2)


def test_options_of_the_other_task_are_refused(call, demo, faces, tmp_path):
    infer(call, faces.int8, faces.cache, demo.images, "--top-k", 2).assert_refused("--top-k", "embedding")
    infer(call, demo.bundle, demo.cache, demo.images, "--normalize").assert_refused("--normalize", "classifier")
    (tmp_path / "labels.txt").write_text("\n".join(map(str, range(FEATURES))))
    options = ["--precision", "fp32", "-o", tmp_path / "x.ran", "--labels", tmp_path / "labels.txt"]
    call("ran-export", faces.checkpoint, *options).assert_refused("--labels", "embedding of 24 features")
    (tmp_path / "pairs.txt").touch()
    pairs = ["--data", demo.test, "--pairs", tmp_path / "pairs.txt"]
    call("ran-validate", demo.bundle, *pairs, "--cache-dir", demo.cache).assert_refused("--pairs", "classifier")
    validate(call, faces, "--unlabelled", demo.images).assert_refused("--unlabelled", "embedding", "--pairs")


def validate(call, faces, *arguments):
    return call("ran-validate", faces.int8, *arguments, "--cache-dir", faces.cache)


@pytest.fixture(scope="module")
def few(demo, tmp_path_factory) -> Path:
    """The first 240 test images, as a data set of their own."""
    path = tmp_path_factory.mktemp("few") / "few.npz"
    with np.load(demo.test) as content:
        np.savez(path, images=content["images"][:240], labels=content["labels"][:240])
    return path


def test_classes_make_pairs_that_a_budget_is_judged_by(call, faces, few, tmp_path):
    options = [
        "--reference",
        faces.checkpoint,
        "--backend",
        "all",
        "--report",
        tmp_path / "x.html",
        "--no-details",
        "--json",
    ]
    outcome = validate(call, faces, "--data", few, "--max-drop", "30", *options)
    report = json.loads(outcome.out)
    engine = report["engines"][0]
    figures, pairs = engine["embedding"], engine["embedding"]["pairs"]
    assert outcome.status == 0, outcome.err
    assert [e["backend"] for e in report["engines"]] == list(BACKENDS)
    assert report["bundle"]["task"] == "embedding"
    assert engine["measure"] == "Verification accuracy"
    assert (report["top1_engine"], report["agreement"]) == (None, None)
    assert report["drop_pp"] == pytest.approx(pairs["accuracy_reference"] - pairs["accuracy_engine"])
    assert report["drop_ci95_pp"][0] <= report["drop_pp"] <= report["drop_ci95_pp"][1] <= 30
    assert 100 <= pairs["pairs"] <= 120
    assert pairs["accuracy_reference"] > 70
    assert 0.8 < figures["cosine"]["lowest"] <= figures["cosine"]["percentile_1"] <= figures["cosine"]["mean"] < 1
    assert figures["turned"][0]["file"].startswith("few.npz[")
    html = (tmp_path / "x.html").read_text()
    assert "Verification accuracy" in html
    assert "What turned most on openvino" in html
    assert "made of the classes" in html


def test_a_budget_of_pairs_can_be_missed(call, faces, few):
    outcome = validate(call, faces, "--data", few, "--max-drop", "0.1")
    assert outcome.status == 1
    assert "erification accuracy drop is" in outcome.out.splitlines()[-1]
    assert " pairs of images, reference" in outcome.out


def write_pairs(path: Path, images: int, name: str) -> Path:
    lines = [f"{name}[{i}] {name}[{(i + 1) % images}] {i % 2}" for i in range(images)]
    path.write_text("\n".join(lines))
    return path


def test_pairs_of_a_file_are_compared_and_no_other_image_is_read(call, faces, few, tmp_path):
    pairs = write_pairs(tmp_path / "pairs.txt", 40, "few.npz")
    report = json.loads(validate(call, faces, "--data", few, "--pairs", pairs, "--json").out)
    assert report["images"] == 40
    assert report["engines"][0]["embedding"]["pairs"]["pairs"] == 40
    assert report["provenance"]["pairs"] == "20 of the same and 20 of different, listed in pairs.txt"


def test_bundles_of_two_checkpoints_are_compared_with_a_warning(call, faces, few, tmp_path):
    source = open_bundle(faces.fp32)
    files = {name: source.read(name) for name in source.manifest.files if not name.startswith("engines/")}
    other = replace(source.manifest.checkpoint, file_name="other.pt", sha256="0" * 64)
    write_bundle(tmp_path / "other.ran", replace(source.manifest, checkpoint=other, engines=()), files)
    outcome = validate(call, faces, "--compare", tmp_path / "other.ran", "--data", few)
    assert "WARNING: The bundles come from different checkpoints, other.pt (sha256 000000000000)" in outcome.out
    assert "WARNING" not in validate(call, faces, "--compare", faces.fp32, "--data", few).out


def test_images_without_classes_are_compared_by_vectors_alone(call, faces, demo, tmp_path):
    outcome = validate(call, faces, "--data", demo.images, "--report", tmp_path / "x.html", "--no-details")
    assert outcome.status == 0, outcome.err
    assert "without classes or --pairs there is no verification accuracy" in outcome.out.splitlines()[-2]
    assert "Same or different" not in (tmp_path / "x.html").read_text()
    validate(call, faces, "--data", demo.images, "--max-drop", 1).assert_refused("--max-drop", "Give --pairs FILE")


def test_pairs_with_an_image_that_cannot_be_read_are_left_out(call, faces, demo, tmp_path):
    images = shutil.copytree(demo.images, tmp_path / "images")
    names = [path.name for path in sorted(images.iterdir())]
    (images / names[0]).write_bytes(b"")
    lines = [f"{a} {b} {i % 2}" for i, (a, b) in enumerate((a, b) for a in names for b in names if a < b)]
    (tmp_path / "pairs.txt").write_text("\n".join(lines))
    report = json.loads(validate(call, faces, "--data", images, "--pairs", tmp_path / "pairs.txt", "--json").out)
    assert report["unreadable"] == 1
    assert report["engines"][0]["embedding"]["pairs"]["pairs"] == 36
    assert report["provenance"]["pairs"].endswith("; 9 more have an image that cannot be read")


@pytest.mark.parametrize(
    ("pairs", "reads"), [("ab1 ac1 ad1 bc0", False), ("ab1 cd0 ce0 cf0 cg0 ch0 de0 df0 dg0 dh0", True)]
)
def test_pairs_that_show_nothing_are_refused_before_any_inference(pairs, reads, call, faces, demo, tmp_path):
    """Too few, or too few whose images can be read: image a cannot."""
    images = shutil.copytree(demo.images, tmp_path / "images")
    names = {letter: path.name for letter, path in zip("abcdefgh", sorted(images.iterdir()), strict=False)}
    (images / names["a"]).write_bytes(b"")
    lines = [f"{names[first]} {names[second]} {same}" for first, second, same in pairs.split()]
    (tmp_path / "pairs.txt").write_text("\n".join(lines))
    outcome = validate(call, faces, "--data", images, "--pairs", tmp_path / "pairs.txt")
    outcome.assert_refused("at least 10 in all are needed")
    assert ("reading" in outcome.err, "reference" in outcome.err) == (reads, False)


def test_pairs_need_data_and_no_limit(call, faces, few, tmp_path):
    pairs = write_pairs(tmp_path / "pairs.txt", 40, "few.npz")
    validate(call, faces, "--pairs", pairs).assert_refused("--pairs", "--data")
    validate(call, faces, "--data", few, "--pairs", pairs, "--limit", 9).assert_refused("--pairs", "--limit")


def test_an_engine_whose_vectors_point_elsewhere_is_not_used(call, faces, demo, tmp_path):
    source = open_bundle(faces.int8)
    golden = read_golden(source)
    wrong = {name: np.roll(vectors, 1, axis=1) for name, vectors in golden.logits.items()}
    files = {name: source.read(name) for name in source.manifest.files}
    files["golden.npz"] = Golden(inputs=golden.inputs, logits=wrong).to_bytes()
    write_bundle(tmp_path / "forged.ran", source.manifest, files)
    outcome = call("ran-infer", tmp_path / "forged.ran", demo.images, "--backend", "openvino")
    outcome.assert_refused("failed the golden self-test", "not used", status=1)


def test_bench_takes_an_embedding(call, faces):
    options = ["--backend", "onnxruntime", "--batch", 2, "--seconds", 0.05, "--warm-up", 1, "--json"]
    rows = json.loads(call("ran-bench", faces.int8, *options, "--cache-dir", faces.cache).out)["rows"]
    assert [row["batch"] for row in rows] == [2]


def test_any_network_may_be_an_embedding(call, tiny, tmp_path):
    options = [*tiny.options, "--precision", "fp32", "--backend", "onnxruntime", "--task", "embedding", "--json"]
    outcome = call("ran-export", tiny.checkpoint, "-o", tmp_path / "tiny.ran", *options)
    manifest = json.loads(outcome.out)
    assert outcome.status == 0, outcome.err
    assert (manifest["task"], manifest["output_size"], manifest["labels"]) == ("embedding", 7, None)
    assert "7 features" in outcome.err
