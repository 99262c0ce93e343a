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

from dogbreed.data.limits import MAX_PARTS, announced

Pixels = npt.NDArray[np.uint8]

MAX_PIXELS = 64_000_000
MAX_BYTES = 64 * 1024 * 1024
# What a decoder of these few formats can be made to do is known; Pillow's other forty plugins stay out of reach.
FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF")
MAX_SIDE = 65_535  # as in a JPEG; each row of a decoded picture costs a pointer
MAX_SCANNED = 1_000_000_000  # pixels × scans of a progressive JPEG: photographs have 10 scans, a hostile one 50,000
SMALLEST_CROP = 0.6  # of the shorter side
VIEWS = ("plain", "flip", "crop1", "crop2", "crop3")
# Raised when the same bytes would give other pixels, so that cached features of the old way are not used.
DECODER_VERSION = 3

ImageFile.LOAD_TRUNCATED_IMAGES = False  # half a picture is an error, never grey pixels with a label
# Our own limit is stricter. Here and not where pictures are opened: filters are not safe to change in threads.
warnings.filterwarnings("ignore", category=Image.DecompressionBombWarning)
warnings.filterwarnings("ignore", module="PIL")  # of broken EXIF data, which we do not need


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


def open_picture(data: bytes, *, max_pixels: int = MAX_PIXELS, formats: tuple[str, ...] = FORMATS) -> Image.Image:
    """Identifies a picture by its content (never by a name) without decoding its pixels.

    Raises:
        BadPicture: not one of `formats`, more than `max_pixels` pixels, or made to keep a decoder busy.
    """
    header = announced(data)
    if header and header.parts > MAX_PARTS:
        raise BadPicture("the picture is broken (it has too many parts)")
    if data.startswith(b"RIFF"):
        max_pixels //= 2  # the decoder of WebP takes 16 bytes for each
    too_large = f"the picture has more than {max_pixels / 1e6:.0f} million pixels"
    if header and header.pixels > max_pixels:
        raise BadPicture(too_large)
    try:
        picture = Image.open(io.BytesIO(data), formats=formats)
    except Image.DecompressionBombError:
        raise BadPicture(too_large) from None
    except Exception:
        if not data:
            raise BadPicture("the file is empty") from None
        known = ", ".join(_NAMES.get(name, name) for name in formats)
        raise BadPicture(f"this is not a picture in a known format ({known})") from None
    if picture.width * picture.height > max_pixels:
        raise BadPicture(too_large)
    if header and header.pixels < picture.width * picture.height:  # a second header: which one counts?
        raise BadPicture("the picture is broken (it has more than one size)")
    if max(picture.size) > MAX_SIDE:
        raise BadPicture(f"the picture is wider or higher than {MAX_SIDE:,} pixels")
    scans = data.count(b"\xff\xda") if picture.format in ("JPEG", "MPO") else 0
    if scans * picture.width * picture.height > MAX_SCANNED:
        raise BadPicture(f"the picture is broken (it has {scans} layers)")
    return picture


_NAMES = {"WEBP": "WebP"}


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
    differs from a full decode by about one level per channel. Other large pictures are reduced before anything else is
    done to them, since each step on all their pixels takes as much memory again.

    Args:
        view: one of `VIEWS`: the middle of the picture, its mirror image, or a random crop (the same one for the same
            `seed`).

    Returns:
        (crop_px, crop_px, 3) uint8, RGB.

    Raises:
        BadPicture: the bytes are not a whole picture.
    """
    return to_pixels(open_picture(data), preprocessing, view, seed=seed)


def to_pixels(picture: Image.Image, preprocessing: Preprocessing, view: str = "plain", *, seed: int = 0) -> Pixels:
    """Like `decode`, of a picture that is open."""
    try:
        shorter = min(picture.size)
        # draft() never goes below the size asked for, so what is cut out is not blown up where the file has the pixels.
        part = SMALLEST_CROP if view.startswith("crop") else preprocessing.crop_px / preprocessing.resize_px
        scale = preprocessing.crop_px / part / shorter
        picture.draft("RGB", (int(picture.width * scale) + 1, int(picture.height * scale) + 1))
        if not view.startswith("crop"):
            picture = _middle(picture)
        picture = _reduced(picture, int(min(picture.size) * part / preprocessing.crop_px))
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


def _reduced(picture: Image.Image, times: int) -> Image.Image:
    """A picture that is many times as large as needed, at twice the size needed; a smaller one as it is."""
    if times < 4 or picture.format in ("JPEG", "MPO"):
        return picture
    exif = picture.getexif()
    factor = times // 2
    if picture.mode in ("RGB", "RGBA", "L"):
        smaller = picture.reduce(factor)
    else:  # in bands, since converting other modes takes several copies
        picture.load()
        width, height = picture.size
        rows = factor * max(1, 2**20 // (factor * width))
        smaller = Image.new("RGB", (-(-width // factor), -(-height // factor)))
        for top in range(0, height, rows):
            band = to_rgb(picture.crop((0, top, width, min(top + rows, height))))
            smaller.paste(band.reduce(factor), (0, top // factor))
    smaller.info["exif"] = exif.tobytes()
    return smaller


def _middle(picture: Image.Image) -> Image.Image:
    """A picture that is much longer than wide without its ends, of which nothing is used: each row costs a pointer."""
    side = 3 * min(picture.size)
    # By an even number, so that the middle stays where it is.
    width, height = (side + (length - side) % 2 if length > side + 1 else length for length in picture.size)
    if (width, height) == picture.size or picture.format in ("JPEG", "MPO"):
        return picture
    exif = picture.getexif()
    left, top = (picture.width - width) // 2, (picture.height - height) // 2
    middle = picture.crop((left, top, left + width, top + height))
    middle.format = picture.format
    middle.info["exif"] = exif.tobytes()
    return middle


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
