"""Videos, cameras and streams as images: one source a frame, decoded in turn."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from ran_deploy.counts import counted
from ran_deploy.errors import ConfigError, InputError
from ran_deploy.images import import_cv2

__all__ = ["is_stream", "is_video", "read_frames", "shown_name"]

VIDEO_SUFFIXES = frozenset({".avi", ".flv", ".m4v", ".mkv", ".mov", ".mp4", ".mpeg", ".mpg", ".ts", ".webm", ".wmv"})
STREAM = re.compile(r"(rtsps?|rtmp|https?|udp|tcp)://", re.IGNORECASE)
USER = re.compile(r"(?<=://)[^/?#]*@")  # in a stream's address: name and password before the host
# Cameras that take no password before the host take it as a parameter; others, such as a channel, tell streams apart.
SECRET = re.compile(r"([?&][^=&#]*(?:user|usr|login|pass|pwd|token|key|auth|secret)[^=&#]*=)[^&#]*", re.IGNORECASE)
CAMERA = re.compile(r"/dev/video[0-9]+")
# Of the frames that a header promises. Some containers know their length in time alone, so the number is a guess.
LEAST_PROMISED = 0.95


def is_stream(name: str) -> bool:
    """Say whether `name` is a stream's address, as in rtsp://host/path."""
    return STREAM.match(name) is not None


def is_camera(name: str) -> bool:
    """Say whether `name` is a camera's, /dev/videoN."""
    return CAMERA.fullmatch(name) is not None


def is_video(name: str) -> bool:
    """Say whether `name` is that of a video file, a camera (/dev/videoN) or a stream; nothing is opened."""
    return is_stream(name) or is_camera(name) or Path(name).suffix.lower() in VIDEO_SUFFIXES


def shown_name(name: str) -> str:
    """Return `name` as it may be written down: a stream's address without the user's name, password and tokens."""
    return SECRET.sub(r"\1***", USER.sub("", name, count=1)) if is_stream(name) else name


def read_frames(name: str | Path, stride: int = 1) -> Iterator[tuple[int, np.ndarray]]:
    """Yield number and pixels, uint8 RGB (H, W, 3), of every `stride`-th frame, turned upright as the file says.

    A stream or camera that goes on for ever is read for as long as frames are asked for.
    Raises: InputError, beginning with the name as `shown_name` has it, for what cannot be opened, has no frames, or
    ends well before its header says; frames that could be had come before. ConfigError for a stride below 1.
    """
    if stride < 1:
        raise ConfigError(f"Every {stride}th frame was asked for; expected 1 for all, 2 for every other, and so on.")
    name = str(name)
    cv2, shown = import_cv2(), shown_name(name)
    video = cv2.VideoCapture(_address(name))
    try:
        if not video.isOpened():
            raise InputError(f"{shown}: {_problem(name)}.")
        number = 0
        while video.grab():
            if number % stride == 0:
                found, frame = video.retrieve()
                if not found:
                    break
                yield number, cv2.cvtColor(frame, cv2.COLOR_BGR2RGB)
            number += 1
        if problem := _problem_of_end(name, number, int(video.get(cv2.CAP_PROP_FRAME_COUNT))):
            raise InputError(f"{shown}: {problem}")
    finally:
        video.release()


def _address(name: str) -> str:
    """Return what OpenCV opens as the file, camera or stream `name`. Raises: InputError if its name is no Unicode."""
    # In a plain day:1.mp4, FFmpeg takes what comes before the colon for a protocol.
    address = name if is_stream(name) else os.path.join(os.curdir, name)  # noqa: PTH118 - pathlib drops the dot
    try:
        address.encode()
    except UnicodeEncodeError:  # OpenCV would end the process
        raise InputError(f"{shown_name(name)}: OpenCV opens only names in UTF-8. Rename it.") from None
    return address


def _problem_of_end(name: str, frames: int, promised: int) -> str | None:
    """Return what is wrong with an end after so many frames, of those that the header promises (0 or less: unknown)."""
    if is_camera(name):  # it has no end
        return f"gives no frame after {counted(frames, 'frame')}. See that it is still connected."
    if frames == 0 and is_stream(name):
        return "sends no frame that can be decoded."
    if frames == 0:
        return "holds no frame that can be decoded. Save it again, as H.264 in .mp4 say."
    if frames < LEAST_PROMISED * promised:
        return f"ends after {frames} of {promised} frames. Copy or save it again."
    return None


def _problem(name: str) -> str:
    """Return why OpenCV, which does not say, may have opened nothing."""
    if is_stream(name):
        return "no video comes from there; check the address, and that this machine reaches it"
    try:
        with Path(name).open("rb", buffering=0):
            pass
    except OSError as exc:
        return f"cannot be read ({exc.strerror})"
    if is_camera(name):
        return "no camera that OpenCV can use, or in use already; v4l2-ctl --list-devices names those that are there"
    return "not a video that OpenCV can decode, or damaged. Save it again, as H.264 in .mp4 say"
