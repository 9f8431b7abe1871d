"""The pipeline with real threads: order, errors, bounded memory, stopping."""

from __future__ import annotations

import itertools
import math
import random
import threading
import time
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor

import numpy as np
import pytest
from PIL import Image

from ran_deploy.errors import BackendUnavailableError, ConfigError, InputError
from ran_deploy.runtime import pipeline
from ran_deploy.runtime.outputs import Outputs
from ran_deploy.runtime.pipeline import run_pipeline
from ran_deploy.runtime.sources import ArraySource, BrokenSource, FileSource

SIDE = (2, 3, 3)


def source(number: int) -> ArraySource:
    """Return an image whose pixels spell `number`."""
    return ArraySource(f"image {number}", np.full(SIDE, number % 251, np.uint8))


def sleepy_prepare(image: np.ndarray) -> np.ndarray:
    time.sleep(random.random() * 0.002)
    return image


def sleepy_infer(batch: np.ndarray) -> np.ndarray:
    """Return the first pixel and the number of images of the batch for each image."""
    time.sleep(random.random() * 0.005)
    return np.stack([batch[:, 0, 0, 0], np.full(len(batch), len(batch))], axis=1).astype(np.float32)


def run(sources, **options):
    options = {"prepare": sleepy_prepare, "infer": sleepy_infer, "batch": 4, "decode_threads": 3, **options}
    return run_pipeline(sources, **options)


@pytest.fixture(autouse=True)
def no_thread_is_left_behind():
    before = set(threading.enumerate())
    yield
    left = set(threading.enumerate()) - before
    assert not left, f"threads left: {left}"


@pytest.mark.parametrize("batch", [1, 4, 7])
@pytest.mark.parametrize("count", [0, 1, 4, 101])
def test_every_source_gives_its_result_in_order(batch, count):
    results = list(run(map(source, range(count)), batch=batch))
    assert [(r.index, r.name, r.error) for r in results] == [(i, f"image {i}", None) for i in range(count)]
    assert [int(r.logits[0]) for r in results] == [i % 251 for i in range(count)]


def test_batches_are_full_but_for_the_last_when_waiting_is_unlimited():
    results = list(run(map(source, range(10)), batch=4, max_wait_ms=math.inf))
    assert [int(r.logits[1]) for r in results] == [4] * 8 + [2] * 2


def test_broken_sources_are_results_with_errors_and_the_rest_goes_on():
    broken = {0, 5, 6, 7, 8, 9, 23, 59}
    sources = [BrokenSource(f"b{i}", f"b{i}: is torn") if i in broken else source(i) for i in range(60)]
    results = list(run(sources))
    assert {r.index for r in results if r.error is not None} == broken
    assert all(r.error == f"b{r.index}: is torn" and r.logits is None for r in results if r.index in broken)
    assert all(int(r.logits[0]) == r.index for r in results if r.index not in broken)


def test_nothing_but_broken_sources_is_no_work_for_the_engine():
    def infer(_: np.ndarray) -> np.ndarray:
        raise AssertionError("no image, no inference")

    results = list(run([BrokenSource("a", "a: x")] * 30, infer=infer))
    assert [r.error for r in results] == ["a: x"] * 30


def test_an_image_that_cannot_be_prepared_is_an_error_of_its_own():
    def prepare(image: np.ndarray) -> np.ndarray:
        if image[0, 0, 0] == 3:
            raise InputError("too small")
        return image

    results = list(run(map(source, range(6)), prepare=prepare))
    assert [r.error for r in results] == [None, None, None, "too small", None, None]


def test_an_engine_failure_is_the_error_of_the_images_of_that_batch():
    def infer(batch: np.ndarray) -> np.ndarray:
        if 13 in batch:
            raise InputError("the engine refuses them")
        return sleepy_infer(batch)

    results = list(run(map(source, range(20)), infer=infer, batch=4, max_wait_ms=math.inf))
    assert [r.index for r in results if r.error == "the engine refuses them"] == [12, 13, 14, 15]
    assert all(r.logits is not None for r in results if r.error is None)


def test_the_batcher_wakes_when_the_image_it_waits_for_is_cancelled():
    """A race while closing: `concurrent.futures.wait` would not wake for a future that is cancelled while it waits."""
    image: Future[np.ndarray] = Future()
    work = pipeline._Work(
        sources=iter(()),
        prepare=sleepy_prepare,
        infer=sleepy_infer,
        batch=1,
        max_wait_s=math.inf,
        stop=threading.Event(),
        decoders=ThreadPoolExecutor(1),
        engines=ThreadPoolExecutor(1),
        slots=threading.Semaphore(1),
    )
    work.pulled.put(pipeline._Pulled(0, "image", image))
    batcher = threading.Thread(target=work.make_batches, daemon=True)
    batcher.start()
    while work.head is None:
        time.sleep(0.001)
    time.sleep(0.05)  # it is waiting for the image now
    work.closed.set()
    image.cancel()
    batcher.join(10)
    assert not batcher.is_alive()


def test_a_lost_device_ends_the_run():
    def infer(batch: np.ndarray) -> np.ndarray:
        raise BackendUnavailableError("the device is gone")

    with pytest.raises(BackendUnavailableError, match="the device is gone"):
        list(run(map(source, range(20)), infer=infer))


def test_too_few_rows_of_logits_are_an_error_and_not_a_shift():
    results = list(run(map(source, range(3)), infer=lambda batch: sleepy_infer(batch)[1:], max_wait_ms=math.inf))
    assert all("2 rows of logits for 3 images" in r.error for r in results)


@pytest.mark.parametrize("where", ["sources", "prepare", "infer"])
def test_an_unexpected_exception_is_raised_where_results_are_consumed(where):
    def sources() -> Iterator[ArraySource]:
        yield from map(source, range(9))
        if where == "sources":
            raise ZeroDivisionError("bug")

    def broken(_: np.ndarray) -> np.ndarray:
        raise ZeroDivisionError("bug")

    with pytest.raises(ZeroDivisionError, match="bug"):
        list(run(sources(), **({} if where == "sources" else {where: broken})))


def test_results_before_a_failure_of_the_sources_are_delivered():
    def sources() -> Iterator[ArraySource]:
        yield from map(source, range(9))
        raise OSError("stdin is gone")

    results = run(sources())
    assert [next(results).index for _ in range(9)] == list(range(9))
    with pytest.raises(OSError, match="stdin is gone"):
        next(results)


def test_sources_are_pulled_only_as_results_are_consumed():
    pulled = itertools.count()
    furthest = 0

    def sources() -> Iterator[ArraySource]:
        nonlocal furthest
        for i in range(10_000):
            furthest = next(pulled) + 1
            yield source(i)

    ahead = 3 + (2 + 1) * 4  # decode threads + (batches in flight + 1) * batch
    results = run(sources(), prepare=lambda image: image, infer=lambda batch: batch[:, 0, 0, :].astype(np.float32))
    worst = max(furthest - consumed for consumed, _ in enumerate(results, 1))
    assert worst <= ahead
    assert furthest == 10_000


def test_two_batches_are_in_flight_at_once():
    both = threading.Barrier(2, timeout=10)

    def infer(batch: np.ndarray) -> np.ndarray:
        both.wait()  # is passed only if another call is here at the same time
        return sleepy_infer(batch)

    assert len(list(run(map(source, range(16)), infer=infer, max_wait_ms=math.inf))) == 16


def test_a_partial_batch_leaves_when_it_is_overdue():
    consumed = threading.Event()

    def sources() -> Iterator[ArraySource]:
        yield source(0)
        assert consumed.wait(10), "the first result never came"
        yield source(1)

    results = run(sources(), batch=4, max_wait_ms=20)
    assert next(results).index == 0
    consumed.set()
    assert [r.index for r in results] == [1]


def test_a_slow_image_does_not_hold_back_those_before_it():
    consumed = threading.Event()

    def prepare(image: np.ndarray) -> np.ndarray:
        if image[0, 0, 0] == 2:
            assert consumed.wait(10), "the results before never came"
        return image

    results = run(map(source, range(4)), prepare=prepare, batch=4, max_wait_ms=20)
    assert [next(results).index, next(results).index] == [0, 1]
    consumed.set()
    assert [r.index for r in results] == [2, 3]


@pytest.mark.parametrize("consumed", [1, 5, 50])
def test_a_consumer_that_stops_early_ends_an_endless_run(consumed):
    results = run(map(source, itertools.count()))
    assert [r.index for r in itertools.islice(results, consumed)] == list(range(consumed))
    results.close()


def test_a_run_that_is_never_begun_starts_no_thread():
    before = threading.active_count()
    run(map(source, range(3)))
    assert threading.active_count() == before


def test_stop_finishes_what_was_pulled_and_ends():
    stop = threading.Event()
    pulled = []

    def sources() -> Iterator[ArraySource]:
        for i in itertools.count():
            pulled.append(i)
            yield source(i)

    seen = []
    for result in run(sources(), stop=stop):
        seen.append(result.index)
        if result.index == 30:
            stop.set()
    assert seen == list(range(len(seen)))
    assert 31 <= len(seen) <= 31 + 3 + 3 * 4
    assert len(pulled) - len(seen) <= 1


def test_stop_finishes_the_source_that_was_pulled_but_not_yet_handed_on():
    stop = threading.Event()

    class Held:
        """A source at which the thread that pulled it stays for longer than the batcher polls."""

        @property
        def name(self) -> str:
            stop.set()
            time.sleep(3 * pipeline.STOP_POLL_S)
            return "held"

        def load(self) -> np.ndarray:
            return np.zeros(SIDE, np.uint8)

    assert [result.name for result in run([Held(), source(1)], stop=stop)] == ["held"]


def test_stop_ends_a_run_whose_sources_have_nothing_to_give_now():
    stop, release = threading.Event(), threading.Event()

    def sources() -> Iterator[ArraySource]:
        yield source(0)
        release.wait(10)

    results = run(sources(), stop=stop)
    assert next(results).index == 0
    stop.set()
    later = threading.Timer(0.3, release.set)
    later.start()
    assert list(results) == []
    later.join()


@pytest.mark.parametrize("wrong", [{"batch": 0}, {"decode_threads": 0}, {"in_flight": 0}])
def test_numbers_that_cannot_work_are_refused_at_once(wrong):
    with pytest.raises(ConfigError, match="all must be positive"):
        run([], **wrong)


def test_real_files_flow_through(tmp_path):
    for i in range(12):
        Image.fromarray(np.full((5, 7, 3), i * 9, np.uint8)).save(tmp_path / f"{i:02}.png")
    (tmp_path / "07.png").write_bytes(b"torn")
    results = list(run([FileSource(str(p)) for p in sorted(tmp_path.iterdir())]))
    assert [r.index for r in results if r.error] == [7]
    assert [int(r.logits[0]) for r in results if not r.error] == [i * 9 for i in range(12) if i != 7]


def attentive_infer(batch: np.ndarray) -> Outputs:
    """Return the first pixel as logits, and all red pixels as the mask of one module."""
    return Outputs(logits=sleepy_infer(batch), attention={"gate": batch[..., 0].astype(np.float32)})


def test_masks_come_with_the_image_they_are_of():
    sources = [source(0), BrokenSource("broken", "broken: is broken"), *map(source, range(2, 9))]
    for number, result in enumerate(run(sources, infer=attentive_infer)):
        if number == 1:
            assert (result.logits, result.attention, result.image) == (None, None, None)
            continue
        assert result.logits[0] == number
        np.testing.assert_array_equal(result.image, np.full(SIDE, number))
        np.testing.assert_array_equal(result.attention["gate"], np.full(SIDE[:2], number))


def test_without_masks_no_image_is_kept():
    assert all(result.image is result.attention is None for result in run(map(source, range(5))))
