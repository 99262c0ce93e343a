"""From a picture's bytes to the pixels a network sees: one decoder for training, evaluation and serving."""

from __future__ import annotations

import io
import warnings
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import PIL
from PIL import Image, ImageFile, ImageOps

Pixels = npt.NDArray[np.uint8]

MAX_PIXELS = 64_000_000
MAX_BYTES = 64 * 1024 * 1024
# What a decoder of these few formats can be made to do is known; Pillow's other forty plugins stay out of reach.
FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "MPO")
SMALLEST_CROP = 0.6  # of the shorter side
VIEWS = ("plain", "flip", "crop1", "crop2", "crop3")
# Raised when the same bytes would give other pixels, so that cached features of the old way are not used.
DECODER_VERSION = 2

ImageFile.LOAD_TRUNCATED_IMAGES = False  # half a picture is an error, never grey pixels with a label
# Our own limit is stricter. Here and not where pictures are opened: filters are not safe to change in threads.
warnings.filterwarnings("ignore", category=Image.DecompressionBombWarning)


class BadPicture(ValueError):
    """Bytes that are not a picture we can use; the message says why, in words fit for a report or an HTTP answer."""


@dataclass(frozen=True)
class Preprocessing:
    """How a backbone wants its pictures.

    The shorter side is scaled to `resize_px`, the middle `crop_px` × `crop_px` is cut out, and each channel becomes
    `(value / 255 − mean) / std`.
    """

    resize_px: int
    crop_px: int
    interpolation: str  # "bilinear" or "bicubic"
    mean: tuple[float, float, float]
    std: tuple[float, float, float]

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_dict(cls, value: dict[str, Any]) -> Preprocessing:
        return cls(**{**value, "mean": tuple(value["mean"]), "std": tuple(value["std"])})


def decoder_identity() -> dict[str, Any]:
    """What the decoded pixels depend on besides the picture and the preprocessing."""
    return {"name": "pillow", "library": PIL.__version__, "version": DECODER_VERSION}


def open_picture(data: bytes, *, max_pixels: int = MAX_PIXELS) -> Image.Image:
    """Identifies a picture by its content (never by a name) without decoding its pixels.

    Raises:
        BadPicture: not one of `FORMATS`, or more than `max_pixels` pixels.
    """
    try:
        picture = Image.open(io.BytesIO(data), formats=FORMATS)
    except Image.DecompressionBombError:
        raise BadPicture(f"the picture has more than {max_pixels / 1e6:.0f} million pixels") from None
    except Exception:
        if not data:
            raise BadPicture("the file is empty") from None
        raise BadPicture("this is not a picture in a known format (JPEG, PNG, WebP, GIF, BMP, TIFF)") from None
    if picture.width * picture.height > max_pixels:
        raise BadPicture(f"the picture has more than {max_pixels / 1e6:.0f} million pixels")
    return picture


def to_rgb(picture: Image.Image) -> Image.Image:
    """Any mode to RGB: transparency over white, 16-bit greyscale scaled down rather than clipped."""
    if picture.mode == "RGB":
        return picture
    if picture.mode.startswith("I;16") or picture.mode == "I":
        values = np.asarray(picture).astype(np.float32).clip(0)
        full = max(float(values.max()), 65535)  # whatever the brightest pixel is: a dark picture stays dark
        picture = Image.fromarray((values / full * 255).round().astype(np.uint8))
    if picture.mode in ("RGBA", "LA", "PA") or "transparency" in picture.info:
        rgba = picture.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", rgba.size, "white"), rgba).convert("RGB")
    return picture.convert("RGB")


def decode(data: bytes, preprocessing: Preprocessing, view: str = "plain", *, seed: int = 0) -> Pixels:
    """The pixels that the network sees.

    A JPEG much larger than needed is decoded at 1/2, 1/4 or 1/8 of its size, which its format makes cheap; the result
    differs from a full decode by about one level per channel.

    Args:
        view: one of `VIEWS`: the middle of the picture, its mirror image, or a random crop (the same one for the same
            `seed`).

    Returns:
        (crop_px, crop_px, 3) uint8, RGB.

    Raises:
        BadPicture: the bytes are not a whole picture.
    """
    picture = open_picture(data)
    try:
        shorter = min(picture.size)
        # draft() never goes below the size asked for, so what is cut out is not blown up where the file has the pixels.
        part = SMALLEST_CROP if view.startswith("crop") else preprocessing.crop_px / preprocessing.resize_px
        scale = preprocessing.crop_px / part / shorter
        picture.draft("RGB", (int(picture.width * scale) + 1, int(picture.height * scale) + 1))
        picture = ImageOps.exif_transpose(picture)
        picture = to_rgb(picture)
        box = _box(picture.size, preprocessing, view, seed)
        method = Image.Resampling.BICUBIC if preprocessing.interpolation == "bicubic" else Image.Resampling.BILINEAR
        size = (preprocessing.crop_px, preprocessing.crop_px)
        picture = picture.resize(size, method, box=box)
    except (BadPicture, MemoryError):  # for want of memory a picture is not broken
        raise
    except Exception as error:  # Pillow raises OSError, SyntaxError, ValueError, struct.error… on broken pictures
        raise BadPicture(f"the picture is broken ({str(error) or type(error).__name__})") from None
    if view == "flip":
        picture = picture.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    return np.asarray(picture, dtype=np.uint8)


def _box(size: tuple[int, int], p: Preprocessing, view: str, seed: int) -> tuple[float, float, float, float]:
    """The part of the picture to keep, in its own pixels: cutting and scaling are then one pass over the pixels."""
    width, height = size
    side = min(width, height) * p.crop_px / p.resize_px
    if not view.startswith("crop"):
        left, top = (width - side) / 2, (height - side) / 2
        return left, top, left + side, top + side
    rng = np.random.default_rng([seed, VIEWS.index(view)])
    side = min(width, height) * rng.uniform(SMALLEST_CROP, 0.95)
    left, top = rng.uniform(0, width - side), rng.uniform(0, height - side)
    return left, top, left + side, top + side


def decode_file(path: Path, preprocessing: Preprocessing, view: str = "plain", *, seed: int = 0) -> Pixels:
    """Like `decode`, from a file; a file that cannot be read is a `BadPicture` too."""
    try:
        if path.stat().st_size > MAX_BYTES:
            raise BadPicture(f"the file is larger than {MAX_BYTES // 2**20} MiB")
        data = path.read_bytes()
    except OSError as error:
        raise BadPicture(f"the file cannot be read ({error.strerror})") from None
    return decode(data, preprocessing, view, seed=seed)
