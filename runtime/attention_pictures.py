"""A picture for each result of inference: the image, and the masks of its attention modules over it."""

from __future__ import annotations

import os
import re
from pathlib import Path

from ran_deploy.bundle_writing import refuse_inside_bundle
from ran_deploy.errors import OutputError
from ran_deploy.images import import_cv2, is_image_path
from ran_deploy.overlays import attention_panels, displayed
from ran_deploy.preprocessing import Preprocessing
from ran_deploy.runtime.pipeline import Result
from ran_deploy.whole_file import write_whole

__all__ = ["AttentionPictures", "picture_name"]

LONGEST_STEM = 48  # characters, of which each may be four bytes of the 255 a file name can have


class AttentionPictures:
    """Writes PNG files into a folder, which is made if it is missing; a failed result has none.

    Raises: OutputError if the folder cannot be written to, from the start, or a picture cannot; without OpenCV
    BackendUnavailableError.
    """

    def __init__(self, folder: Path, recipe: Preprocessing) -> None:
        self.folder = folder
        self.recipe = recipe
        self._cv2 = import_cv2()
        refuse_inside_bundle(folder / "picture.png")
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as exc:
            raise OutputError(f"Cannot make the folder {folder} ({exc.strerror}). Choose another place.") from exc
        if not os.access(folder, os.W_OK | os.X_OK):
            raise OutputError(f"Cannot write into {folder}: it is read-only. Choose another place.")

    def write(self, result: Result) -> None:
        """Draw one result."""
        if result.attention is None or result.image is None:
            return
        picture = attention_panels(displayed(result.image, self.recipe), result.attention)
        _, data = self._cv2.imencode(".png", picture[:, :, ::-1])
        write_whole(self.folder / picture_name(result), data.tobytes())


def picture_name(result: Result) -> str:
    """Return a file name for a result: its number from 1 on, and what is harmless of its source's name."""
    name = Path(result.name).name
    stem = Path(name).stem if is_image_path(Path(name)) else name
    harmless = re.sub(r"[^\w.-]+", "_", stem).strip("_")[:LONGEST_STEM]
    return f"{result.index + 1:06d}-{harmless or 'image'}.png"
