"""ran-infer: batched inference over files, folders and lists."""

from __future__ import annotations

import contextlib
import io
import sys
import threading
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ran_deploy.commands.engine_lines import half_pixel_note
from ran_deploy.commands.native_lines import move_python_stderr, sum_up_native_lines
from ran_deploy.commands.options import (
    backend_option,
    cache_dir_option,
    device_option,
    require_signature_option,
    threads_option,
    verbose_option,
    version_option,
)
from ran_deploy.commands.printing import printable
from ran_deploy.commands.progress import Counter
from ran_deploy.commands.running import INTERRUPTED, on_signals, run_command
from ran_deploy.counts import counted
from ran_deploy.errors import ConfigError

if TYPE_CHECKING:
    from ran_deploy.manifest import BatchProfile, Manifest
    from ran_deploy.runtime.answers import Answers
    from ran_deploy.runtime.attention_pictures import AttentionPictures
    from ran_deploy.runtime.pipeline import Result
    from ran_deploy.runtime.predictor import Predictor
    from ran_deploy.runtime.sources import Source

NAME_WIDTH = 48
SAME_SIGNAL_S = 1.0  # timeout sends one to the process and one to its group


@click.command(name="ran-infer")
@click.argument("bundle", type=click.Path(path_type=Path))
@click.argument("inputs", nargs=-1, required=True)
@backend_option(extra=("auto",), default="auto", show_default=True, help="Engine to run.")
@click.option(
    "--batch", type=click.IntRange(min=1), metavar="N", help="Images in one run.  [default: the engine's optimum]"
)
@click.option(
    "--frame-stride",
    type=click.IntRange(min=1),
    default=1,
    show_default=True,
    metavar="N",
    help="Of videos take every N-th frame.",
)
@click.option("--top-k", type=click.IntRange(min=1), metavar="K", help="Classes to give each image.  [default: 1]")
@click.option("--normalize", is_flag=True, help="Give the vectors of an embedding L2 norm 1.")
@click.option(
    "-o", "--output", type=click.Path(path_type=Path), help="Write results to FILE.jsonl, FILE.csv or FILE.npy."
)
@click.option(
    "--attention",
    type=click.Path(path_type=Path, file_okay=False),
    metavar="DIR",
    help="Draw the soft masks over each image, one PNG each; of bundles exported --with-attention.",
)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object a line instead of a table.")
@threads_option()
@device_option()
@cache_dir_option()
@require_signature_option()
@verbose_option()
@version_option()
def infer(
    bundle: Path,
    inputs: tuple[str, ...],
    backend: str,
    batch: int | None,
    frame_stride: int,
    top_k: int | None,
    normalize: bool,
    output: Path | None,
    attention: Path | None,
    as_json: bool,
    threads: int,
    device: str | None,
    cache_dir: Path | None,
    require_signature: Path | None,
) -> int:
    """Classify or embed images with the engine of BUNDLE.

    INPUTS are image files, folders of them, patterns, .npy or .npz arrays (uint8), videos, cameras (/dev/video0),
    streams (rtsp://...), or - for a list of files on standard input. Results come in the order of the inputs. An image
    that cannot be read becomes a result with an error; the rest is done, and the exit status is 1. In FILE.npy (logits,
    or an embedding's features) it is a row of NaN; FILE.sources.jsonl beside it says which row is which image. Pictures
    of --attention are numbered as the inputs.
    """
    move_python_stderr()
    from ran_deploy.bundle import open_bundle
    from ran_deploy.runtime.answers import answers_of
    from ran_deploy.runtime.sources import expand_inputs
    from ran_deploy.workflows.engines.device_choice import using_device
    from ran_deploy.workflows.engines.loading import load_engine

    if isinstance(sys.stdin, io.TextIOWrapper):
        sys.stdin.reconfigure(errors="surrogateescape")  # the names of files need not be UTF-8
    sources = expand_inputs(inputs, sys.stdin, frame_stride=frame_stride)
    counter = Counter(quiet=output is None and sys.stdout.isatty())  # the table itself shows how far it is
    opened = open_bundle(bundle, require_signature=require_signature)
    answers = answers_of(opened.manifest, top_k=top_k, normalize=normalize)
    with contextlib.ExitStack() as stack:
        sink = stack.enter_context(_sink(output, answers, as_json))
        pictures = _pictures(attention, opened.manifest) if attention is not None else None
        stack.enter_context(using_device(device, opened, [backend], cache_dir))
        loaded = load_engine(opened, backend, cache_dir=cache_dir, threads=threads)
        predictor = stack.enter_context(loaded.predictor)
        _check_batch(batch, predictor.batch)
        stop = stack.enter_context(_stop_on_interrupt())
        stack.enter_context(sum_up_native_lines())
        stack.callback(counter.clear)
        size = batch or predictor.batch.optimum
        done, failed = _write_results(predictor, sources, sink, pictures, stop, counter, size)
    summary = counted(done, "image") + (f", {failed:,} failed" if failed else "")
    where = (f", results in {output}" if output else "") + (f", pictures in {attention}" if attention else "")
    click.echo(f"{summary} ({predictor.backend}{half_pixel_note(predictor.half_pixel)}){where}", err=True)
    if stop.is_set():
        return INTERRUPTED
    return 1 if failed else 0


def _pictures(folder: Path, manifest: Manifest) -> AttentionPictures:
    """Return what draws the masks. Raises: ConfigError if the bundle has none; OutputError."""
    from ran_deploy.runtime.attention_pictures import AttentionPictures
    from ran_deploy.runtime.predictor import require_attention

    require_attention(manifest)
    return AttentionPictures(folder, manifest.preprocessing)


def _check_batch(batch: int | None, profile: BatchProfile) -> None:
    """Raise ConfigError for more images than the engine takes in one run."""
    if batch is not None and batch > profile.maximum:
        raise ConfigError(
            f"--batch is {batch}; the engine takes at most {counted(profile.maximum, 'image')} in one run. Choose "
            f"fewer, or export or build it with --batch {profile.taking(batch)}."
        )


def _write_results(
    predictor: Predictor,
    sources: Iterable[Source],
    sink: Any,
    pictures: AttentionPictures | None,
    stop: threading.Event,
    counter: Counter,
    batch: int,
) -> tuple[int, int]:
    """Run every source and write its result; return how many were done, and how many of these failed."""
    from ran_deploy.runtime.pipeline import run_pipeline

    done = failed = 0
    run = predictor.infer_batch if pictures is None else predictor.infer_outputs
    results = run_pipeline(sources, prepare=predictor.prepare, infer=run, batch=batch, stop=stop)
    with contextlib.closing(results):  # its threads end before the engine does
        for result in results:
            sink.write(result)
            if pictures is not None:
                pictures.write(result)
            done += 1
            failed += result.error is not None
            counter(done)
    return done, failed


class _Table:
    """Results as lines for a person."""

    def __init__(self, answers: Answers) -> None:
        self.answers = answers

    def __enter__(self) -> _Table:
        return self

    def __exit__(self, *exception: object) -> None:
        pass

    def write(self, result: Result) -> None:
        name = printable(result.name)
        if len(name) > NAME_WIDTH:
            name = "..." + name[3 - NAME_WIDTH :]
        answer = f"error: {result.error}" if result.logits is None else self.answers.line(result.logits)
        click.echo(f"{name:<{NAME_WIDTH}}  {printable(answer)}")  # class names are whatever the bundle's maker wrote


class _JsonLines(_Table):
    """Results as one JSON object a line on standard output."""

    def write(self, result: Result) -> None:
        from ran_deploy.runtime.sinks import json_row

        click.echo(json_row(result, self.answers).encode())  # JSON is UTF-8, whatever the terminal is


def _sink(output: Path | None, answers: Answers, as_json: bool) -> Any:
    if output is not None:
        if as_json:
            raise ConfigError(f"--json prints to standard output and --output writes {output}; choose one.")
        from ran_deploy.runtime.result_files import open_sink

        return open_sink(output, answers)
    return _JsonLines(answers) if as_json else _Table(answers)


@contextlib.contextmanager
def _stop_on_interrupt() -> Iterator[threading.Event]:
    """Yield an event that the first SIGINT or SIGTERM sets; what is in flight is finished. A later one ends it."""
    stop = threading.Event()
    stopped_at = 0.0

    def on_signal(number: int, frame: Any) -> None:
        nonlocal stopped_at
        if not stop.is_set():
            stopped_at = time.monotonic()
            stop.set()
            click.echo("stopping: finishing what is in flight", err=True)
        elif time.monotonic() > stopped_at + SAME_SIGNAL_S:
            raise KeyboardInterrupt

    with on_signals(on_signal):
        yield stop


def main() -> None:
    run_command(infer)
