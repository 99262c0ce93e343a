"""Cartoon dogs: breeds that differ in build, ears, tail, coat and markings, each picture in a pose of its own."""

from __future__ import annotations

import io
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageChops, ImageDraw, ImageFilter

Points = npt.NDArray[np.float64]  # (N, 2), x to the right, y up
Colour = tuple[int, int, int]
_Placer = Callable[[Points], Points]  # from the head's own frame to the dog's

_SUPERSAMPLING = 3
_INK: Colour = (46, 36, 34)


@dataclass(frozen=True)
class Breed:
    """A drawn breed. Lengths are in units of an ordinary trunk; `coats` are (main, second) colours to choose from.

    Required: its name and its build. Optional: what the coat, the markings and the face look like.
    """

    name: str
    trunk: float  # from hip to shoulder
    girth: float  # radius of the chest
    leg: float
    coats: tuple[tuple[Colour, Colour], ...]
    head: float = 0.36  # radius of the skull
    neck: float = 0.42
    muzzle: float = 0.42
    ears: str = "drop"  # drop, long, prick, bat, button, tuft
    tail: str = "whip"  # whip, curl, plume, bob, brush
    fur: str = "smooth"  # smooth, fluffy, curly, wire, silk
    marking: str = "plain"  # plain, spots, saddle, patches, mask, bib, tan
    face: str = "plain"  # plain, flat, beard, sad
    poms: bool = False


_WHITE: Colour = (247, 244, 238)
_CREAM: Colour = (240, 222, 190)
_GOLD: Colour = (222, 170, 98)
_FAWN: Colour = (214, 176, 128)
_ORANGE: Colour = (216, 126, 58)
_RUST: Colour = (166, 84, 44)
_BROWN: Colour = (116, 72, 48)
_LIVER: Colour = (88, 54, 42)
_BLACK: Colour = (58, 54, 60)
_GREY: Colour = (142, 146, 154)
_SILVER: Colour = (194, 198, 204)

BREEDS = (
    Breed(
        "Sausage_hound", 1.75, 0.31, 0.26, ((_RUST, _BROWN), (_BROWN, _RUST), (_BLACK, _RUST), (_GOLD, _RUST)),
        head=0.31, neck=0.34, muzzle=0.52, marking="tan",
    ),
    Breed(
        "Cloud_spitz", 0.78, 0.50, 0.42, ((_WHITE, _CREAM), (_CREAM, _WHITE), (_ORANGE, _CREAM), (_SILVER, _WHITE)),
        head=0.40, neck=0.36, muzzle=0.26, ears="tuft", tail="plume", fur="fluffy",
    ),
    Breed(
        "Polka_pointer", 1.10, 0.32, 0.80, ((_WHITE, _BLACK), (_WHITE, _LIVER), (_CREAM, _BROWN), (_SILVER, _BLACK)),
        head=0.31, neck=0.50, muzzle=0.42, marking="spots",
    ),
    Breed(
        "Velvet_basset", 1.32, 0.40, 0.28, ((_WHITE, _RUST), (_CREAM, _BROWN), (_GOLD, _WHITE), (_WHITE, _BLACK)),
        head=0.37, neck=0.32, muzzle=0.44, ears="long", marking="patches", face="sad",
    ),
    Breed(
        "Arrow_shepherd", 1.16, 0.36, 0.62, ((_GOLD, _BLACK), (_FAWN, _BLACK), (_ORANGE, _BLACK), (_CREAM, _BROWN)),
        head=0.33, neck=0.50, muzzle=0.46, ears="prick", tail="brush", marking="saddle",
    ),
    Breed(
        "Pompom_poodle", 0.90, 0.36, 0.74, ((_WHITE, _CREAM), (_BLACK, _GREY), (_GOLD, _CREAM), (_GREY, _SILVER)),
        head=0.32, neck=0.50, muzzle=0.46, tail="bob", fur="curly", poms=True,
    ),
    Breed(
        "Button_pug", 0.80, 0.40, 0.42, ((_FAWN, _BLACK), (_CREAM, _BLACK), (_GOLD, _BLACK), (_SILVER, _BLACK)),
        head=0.43, neck=0.28, muzzle=0.10, ears="button", tail="curl", marking="mask", face="flat",
    ),
    Breed(
        "Silk_afghan", 1.02, 0.32, 0.78, ((_GOLD, _CREAM), (_CREAM, _GOLD), (_BLACK, _GREY), (_RUST, _GOLD)),
        head=0.30, neck=0.54, muzzle=0.54, ears="long", tail="whip", fur="silk",
    ),
    Breed(
        "Whisker_terrier", 0.88, 0.37, 0.56, ((_GREY, _SILVER), (_BLACK, _SILVER), (_SILVER, _WHITE), (_FAWN, _CREAM)),
        head=0.34, neck=0.42, muzzle=0.44, ears="button", tail="bob", fur="wire", face="beard",
    ),
    Breed(
        "Loaf_corgi", 1.18, 0.38, 0.27, ((_ORANGE, _WHITE), (_GOLD, _WHITE), (_FAWN, _WHITE), (_BLACK, _WHITE)),
        head=0.35, neck=0.36, muzzle=0.36, ears="bat", tail="bob", marking="bib",
    ),
)  # fmt: skip


def draw_jpeg(breed: int, number: int, *, seed: int = 0, size_px: int = 256) -> bytes:
    """One picture of `BREEDS[breed]` as the bytes of a JPEG file."""
    rng = np.random.default_rng([seed, breed, number])
    picture = _draw(BREEDS[breed], rng, size_px * _SUPERSAMPLING).reduce(_SUPERSAMPLING)
    picture = _photograph(picture, rng)
    buffer = io.BytesIO()
    picture.save(buffer, "JPEG", quality=int(rng.integers(60, 95)))
    return buffer.getvalue()


def _photograph(picture: Image.Image, rng: np.random.Generator) -> Image.Image:
    """What a camera adds: light of some colour, a little blur, noise."""
    if rng.random() < 0.5:
        picture = picture.filter(ImageFilter.GaussianBlur(rng.uniform(0.2, 1.4) * picture.width / 256))
    pixels = np.asarray(picture, dtype=np.float32)
    light = rng.uniform(0.82, 1.12) * rng.uniform(0.94, 1.06, 3)
    noise = rng.standard_normal((*pixels.shape[:2], 1), dtype=np.float32) * rng.uniform(1, 8)
    return Image.fromarray((pixels * light.astype(np.float32) + noise).clip(0, 255).astype(np.uint8))


# ── shapes ───────────────────────────────────────────────────────────────────────────────────────────────────────────


def _at(x: float, y: float) -> Points:
    return np.array([x, y], dtype=float)


def _direction(degrees: float) -> Points:
    return np.array([np.cos(np.radians(degrees)), np.sin(np.radians(degrees))])


def _ellipse(centre: Points, rx: float, ry: float, turn: float = 0.0, steps: int = 40) -> Points:
    angle = np.linspace(0, 2 * np.pi, steps, endpoint=False)
    return _turned(np.stack([rx * np.cos(angle), ry * np.sin(angle)], axis=1), turn) + centre


def _turned(points: Points, degrees: float) -> Points:
    c, s = np.cos(np.radians(degrees)), np.sin(np.radians(degrees))
    turned: Points = points @ np.array([[c, s], [-s, c]])
    return turned


def _limb(a: Points, b: Points, ra: float, rb: float, steps: int = 14) -> Points:
    """Two circles and what lies between them: legs, necks, muzzles, trunks."""
    along = np.degrees(np.arctan2(b[1] - a[1], b[0] - a[0]))
    distance = max(float(np.hypot(*(b - a))), 1e-6)
    lean = np.degrees(np.arcsin(np.clip((ra - rb) / distance, -0.99, 0.99)))
    cap_b = [b + rb * _direction(along + t) for t in np.linspace(-90 + lean, 90 - lean, steps)]
    cap_a = [a + ra * _direction(along + t) for t in np.linspace(90 - lean, 270 + lean, steps)]
    return np.array(cap_b + cap_a)


def _smooth(points: Sequence[Sequence[float]], steps: int = 8) -> Points:
    """A closed curve through the points (Catmull-Rom)."""
    p = np.asarray(points, dtype=float)
    before, after, beyond = np.roll(p, 1, axis=0), np.roll(p, -1, axis=0), np.roll(p, -2, axis=0)
    t = np.linspace(0, 1, steps, endpoint=False)[None, :, None]
    a, b, c, d = (q[:, None, :] for q in (before, p, after, beyond))
    curve = 0.5 * (2 * b + (c - a) * t + (2 * a - 5 * b + 4 * c - d) * t**2 + (3 * b - a - 3 * c + d) * t**3)
    smoothed: Points = curve.reshape(-1, 2)
    return smoothed


def _ruffled(outline: Points, fur: str, rng: np.random.Generator) -> Points:
    """An outline with the fur's edge: tufts, curls or bristles."""
    if fur not in ("fluffy", "curly", "wire"):
        return outline
    length, height = {"fluffy": (0.17, 0.075), "curly": (0.15, 0.055), "wire": (0.075, 0.035)}[fur]
    closed = np.vstack([outline, outline[:1]])
    travelled = np.concatenate([[0], np.cumsum(np.hypot(*np.diff(closed, axis=0).T))])
    tufts = max(5, round(travelled[-1] / length))
    per_tuft = 6
    place = np.linspace(0, travelled[-1], tufts * per_tuft, endpoint=False)
    points = np.stack([np.interp(place, travelled, closed[:, k]) for k in (0, 1)], axis=1)
    tangent = np.roll(points, -1, axis=0) - np.roll(points, 1, axis=0)
    normal = np.stack([tangent[:, 1], -tangent[:, 0]], axis=1) / (np.hypot(*tangent.T)[:, None] + 1e-9)
    phase = np.tile(np.arange(per_tuft) / per_tuft, tufts)
    # Curls are round; tufts and bristles rise slowly and fall steeply.
    rise = np.abs(np.sin(np.pi * phase)) if fur == "curly" else phase
    size = np.repeat(rng.uniform(0.6, 1.25, tufts), per_tuft)
    ruffled: Points = points + normal * (height * rise * size)[:, None]
    return ruffled


def _mix(a: Colour, b: Colour, part: float) -> Colour:
    return tuple(round(x + (y - x) * part) for x, y in zip(a, b, strict=True))  # type: ignore[return-value]


def _varied(colour: Colour, rng: np.random.Generator, amount: float = 14) -> Colour:
    shift = rng.normal(0, amount * 0.8) + rng.normal(0, amount * 0.3, 3)
    r, g, b = (int(np.clip(c + s, 0, 255)) for c, s in zip(colour, shift, strict=True))
    return r, g, b


class _Sheet:
    """A picture with a frame of reference: dog units, y up, feet at y = 0."""

    def __init__(self, picture: Image.Image, origin: Points, unit: float, turn: float, mirrored: bool) -> None:
        self.picture = picture
        self.origin, self.unit, self.turn, self.mirrored = origin, unit, turn, mirrored
        self.line = max(2, round(unit * 0.022))

    def pixels(self, points: Points) -> list[tuple[float, float]]:
        p = _turned(points, self.turn) * self.unit
        x = self.origin[0] + (-p[:, 0] if self.mirrored else p[:, 0])
        return list(zip(x.tolist(), (self.origin[1] - p[:, 1]).tolist(), strict=True))

    def group(
        self, shapes: Sequence[Points], fill: Colour, markings: Sequence[tuple[Points, Colour]] = (), shade: float = 0.2
    ) -> None:
        """Shapes that merge into one with a common outline, with markings that end at its edge and a shaded belly."""
        polygons = [self.pixels(s) for s in shapes]
        everything = np.concatenate([np.array(p) for p in polygons])
        pad = 3 * self.line
        low = np.maximum(everything.min(axis=0).astype(int) - pad, 0)
        high = np.minimum(everything.max(axis=0).astype(int) + pad, self.picture.size)
        if (high - low < 2).any():
            return
        box = (int(low[0]), int(low[1]), int(high[0]), int(high[1]))
        size = (box[2] - box[0], box[3] - box[1])
        mask, edge = Image.new("L", size), Image.new("L", size)
        on_mask, on_edge = ImageDraw.Draw(mask), ImageDraw.Draw(edge)
        paint = Image.new("RGB", size, fill)
        on_paint = ImageDraw.Draw(paint)
        for polygon in polygons:
            local = [(x - box[0], y - box[1]) for x, y in polygon]
            on_mask.polygon(local, fill=255)
            on_edge.line([*local, local[0], local[1]], fill=255, width=2 * self.line, joint="curve")
        for shape, colour in markings:
            on_paint.polygon([(x - box[0], y - box[1]) for x, y in self.pixels(shape)], fill=colour)
        if shade:
            lit = ImageChops.offset(mask, 0, -max(2, round(0.09 * self.unit)))
            dark = Image.blend(paint, Image.new("RGB", size, _INK), shade)
            paint.paste(dark, (0, 0), ImageChops.subtract(mask, lit))
        self.picture.paste(_INK, box, edge)
        self.picture.paste(paint, box, mask)

    def spot(self, shape: Points, colour: Colour) -> None:
        ImageDraw.Draw(self.picture).polygon(self.pixels(shape), fill=colour)

    def stroke(self, points: Points, colour: Colour = _INK, width: float = 0.02) -> None:
        ImageDraw.Draw(self.picture).line(
            self.pixels(points), fill=colour, width=max(2, round(width * self.unit)), joint="curve"
        )


# ── the dog ──────────────────────────────────────────────────────────────────────────────────────────────────────────


def _draw(breed: Breed, rng: np.random.Generator, size: int) -> Image.Image:
    horizon = rng.uniform(0.45, 0.72)
    picture = _background(rng, size, horizon)
    height = breed.leg + 2 * breed.girth + breed.neck + breed.head
    width = breed.trunk + 2 * breed.girth + breed.neck + breed.head + breed.muzzle
    unit = size * rng.uniform(0.5, 1.15) / max(width * 0.93, height * 1.02)
    mirrored = bool(rng.random() < 0.5)
    slack = max(size - width * unit, 0.05 * size) / 2
    forward = 0.5 * (breed.neck + breed.head) * unit * (1 if mirrored else -1)
    bottom = size * max(horizon + 0.1, rng.uniform(0.80, 0.95))
    top_room = bottom - height * unit
    bottom += max(0.0, 0.03 * size - top_room)
    origin = _at(size / 2 + forward * 0.7 + rng.uniform(-0.8, 0.8) * slack, bottom)
    sheet = _Sheet(picture, origin, unit, rng.uniform(-6, 6), mirrored)
    shadow = _ellipse(_at(0.05, -0.03), breed.trunk / 2 + breed.girth + 0.12, 0.09)
    layer = Image.new("L", picture.size)
    ImageDraw.Draw(layer).polygon(sheet.pixels(shadow), fill=90)
    picture.paste((30, 30, 40), (0, 0), layer)
    _dog(breed, sheet, rng)
    if rng.random() < 0.35:
        _foreground(picture, rng)
    return picture


def _dog(breed: Breed, sheet: _Sheet, rng: np.random.Generator) -> None:
    # Now and then a coat of another breed, so that colours hint at a breed but do not give it away.
    coats = breed.coats if rng.random() < 0.7 else BREEDS[int(rng.integers(len(BREEDS)))].coats
    main, second = coats[int(rng.choice(len(coats), p=(0.4, 0.25, 0.2, 0.15)))]
    main, second = _varied(main, rng), _varied(second, rng)
    # No two dogs of a breed are built quite alike.
    trunk, girth, leg = (value * rng.uniform(0.9, 1.1) for value in (breed.trunk, breed.girth, breed.leg))
    hip = _at(-trunk / 2, leg + girth * 0.92)
    shoulder = _at(trunk / 2, leg + girth)
    far = _mix(main, _INK, 0.28)
    stride = rng.uniform(4, 24) * (1 if rng.random() < 0.5 else -1)
    legs = _legs(breed, hip, shoulder, girth, leg, stride)
    sheet.group(legs["far"], far, shade=0)
    _tail(breed, sheet, hip, girth, main, second, rng)

    reach = rng.uniform(38, 72) if breed.leg > 0.35 else rng.uniform(34, 58)
    head = shoulder + _at(0.1, 0.3 * girth) + (breed.neck + 0.25 * girth) * _direction(reach)
    trunk_shape = _trunk(hip, shoulder, girth, breed)
    neck = _limb(shoulder + _at(0, 0.1 * girth), head, girth * 0.78, breed.head * 0.62)
    shapes = [_ruffled(trunk_shape, breed.fur, rng), *legs["near"], _ruffled(neck, breed.fur, rng)]
    if breed.fur == "silk":
        curtain, strands = _curtain(hip, shoulder, girth, leg, rng)
        shapes.append(curtain)
    sheet.group(shapes, main, _markings(breed, hip, shoulder, girth, leg, head, main, second, rng))
    if breed.fur == "silk":
        for i, strand in enumerate(strands):
            sheet.stroke(strand, _mix(main, second if i % 3 else _INK, 0.45 if i % 3 else 0.3), 0.018)
    if breed.poms:
        for end in legs["feet"]:
            pom = _ruffled(_ellipse(end + _at(-0.01, 0.2), 0.15, 0.16), "curly", rng)
            sheet.group([pom], main)
        chest = _ruffled(_ellipse(shoulder + _at(0.0, 0.0), girth * 1.12, girth * 1.15), "curly", rng)
        sheet.group([chest], main)
    elif breed.fur == "fluffy":
        ruff = _ruffled(_ellipse(shoulder + _at(0.12, 0.16), girth * 0.86, girth * 0.98, 20), "fluffy", rng)
        sheet.group([ruff], _mix(main, second, 0.5))
    _head(breed, sheet, head, main, second, rng)


def _trunk(hip: Points, shoulder: Points, girth: float, breed: Breed) -> Points:
    tuck = 0.55 if breed.leg > 0.6 else 0.85  # runners have a waist
    (hx, hy), (sx, sy) = hip, shoulder
    middle = (hx + sx) / 2
    return _smooth(
        [
            (hx - 0.92 * girth, hy + 0.1 * girth),
            (hx - 0.3 * girth, hy + 0.88 * girth),
            (middle, hy + 0.84 * girth),
            (sx, sy + 0.95 * girth),
            (sx + 0.92 * girth, sy + 0.25 * girth),
            (sx + 0.55 * girth, sy - 0.78 * girth),
            (sx - 0.2 * girth, sy - 0.98 * girth),
            (middle - 0.15 * girth, hy - tuck * girth),
            (hx - 0.2 * girth, hy - 0.85 * girth),
            (hx - 0.75 * girth, hy - 0.6 * girth),
        ]
    )


def _legs(
    breed: Breed, hip: Points, shoulder: Points, girth: float, leg: float, stride: float
) -> dict[str, list[Points]]:
    """Shapes of the far and the near legs; under "feet" the four feet's places."""
    thick = 0.115 + 0.12 * girth if breed.fur not in ("fluffy", "wire") else 0.15 + 0.13 * girth
    legs: dict[str, list[Points]] = {"far": [], "near": [], "feet": []}
    for side, sign, shift in (("far", -1.0, 0.16), ("near", 1.0, 0.0)):
        for joint, is_hind in ((hip, True), (shoulder, False)):
            top = joint + _at(shift * 0.6 if is_hind else shift, -0.25 * girth)
            swing = stride * sign * (-1.0 if is_hind else 1.0)
            foot = _at(top[0] + leg * np.sin(np.radians(swing)), thick * 0.55)
            knee = (top + foot) / 2 + _at(-0.09 * leg if is_hind else 0.03 * leg, 0)
            legs[side] += [
                _limb(top, knee, thick * (1.6 if is_hind else 1.2), thick * 0.72),
                _limb(knee, foot, thick * 0.72, thick * 0.6),
                _ellipse(foot + _at(thick * 0.35, -thick * 0.02), thick * 0.95, thick * 0.58),
            ]
            legs["feet"].append(foot)
    return legs


def _markings(
    breed: Breed,
    hip: Points,
    shoulder: Points,
    girth: float,
    leg: float,
    head: Points,
    main: Colour,
    second: Colour,
    rng: np.random.Generator,
) -> list[tuple[Points, Colour]]:
    middle = (hip + shoulder) / 2
    length = shoulder[0] - hip[0]

    def blot(centre: Points, radius: float) -> Points:
        wobble = rng.uniform(0.75, 1.25, 9)
        angles = np.linspace(0, 360, 9, endpoint=False)
        return _smooth([centre + radius * w * _direction(a) for w, a in zip(wobble, angles, strict=True)])

    if breed.marking == "spots":
        spots = []
        for _ in range(int(rng.integers(26, 44))):
            place = _at(rng.uniform(hip[0] - girth, head[0]), rng.uniform(0.1, head[1]))
            spots.append((blot(place, rng.uniform(0.035, 0.085)), second))
        return spots
    if breed.marking == "patches":
        places = rng.uniform(-0.5, 0.5, int(rng.integers(2, 4)))
        return [
            (
                blot(middle + _at(x * (length + girth), rng.uniform(0, 0.7) * girth), girth * rng.uniform(0.5, 0.85)),
                second,
            )
            for x in places
        ]
    if breed.marking == "saddle":
        y = middle[1] + rng.uniform(0.0, 0.2) * girth
        return [
            (
                _smooth(
                    [
                        (hip[0] - 1.2 * girth, y + 0.4 * girth),
                        (hip[0] - 0.2 * girth, y - 0.25 * girth),
                        (middle[0], y - 0.1 * girth),
                        (shoulder[0] - 0.1 * girth, y - 0.35 * girth),
                        (shoulder[0] + 0.25 * girth, y + 0.5 * girth),
                        (shoulder[0] + 0.5 * girth, y + 1.8 * girth),
                        (hip[0], y + 2.0 * girth),
                    ]
                ),
                second,
            )
        ]
    if breed.marking == "bib":
        feet = _ellipse(_at(middle[0], 0), length + 2 * girth, leg * rng.uniform(0.5, 0.9))
        return [(_ellipse(shoulder + _at(0.75 * girth, -0.05), 0.62 * girth, 1.15 * girth, 12), second), (feet, second)]
    if breed.marking == "tan":
        return [(_ellipse(_at(middle[0], 0), length + 2 * girth, leg * rng.uniform(0.5, 1.0)), second)]
    if breed.fur == "fluffy":
        return [(_ellipse(middle + _at(0, -0.9 * girth), length, 0.5 * girth), second)]
    if breed.fur == "wire":
        return [(_ellipse(_at(middle[0], 0), length + 2 * girth, leg * 0.95), second)]
    return []


def _tail(
    breed: Breed, sheet: _Sheet, hip: Points, girth: float, main: Colour, second: Colour, rng: np.random.Generator
) -> None:
    root = hip + _at(-0.7 * girth, 0.5 * girth)
    lift = float(rng.uniform(100, 165))
    if breed.tail == "bob":
        end = root + 0.16 * _direction(lift)
        shapes = [_limb(root, end, 0.09, 0.075)]
        if breed.poms:
            end = root + 0.36 * _direction(lift)
            shapes = [_limb(root, end, 0.05, 0.05), _ruffled(_ellipse(end, 0.16, 0.16), "curly", rng)]
        sheet.group(shapes, main, shade=0.1)
        return
    if breed.tail == "curl":
        centre = root + _at(-0.02, 0.16)
        turns = np.linspace(-60, 420 + rng.uniform(-40, 40), 26)
        path = [centre + (0.2 - 0.00026 * (t + 60)) * _direction(180 - t) for t in turns]
        for a, b in pairwise(path):
            sheet.group([_limb(a, b, 0.075, 0.072, 6)], main, shade=0)
        for a, b in pairwise(path):
            sheet.spot(_limb(a, b, 0.073, 0.07, 6), main)
        return
    if breed.tail == "plume":
        tip = root + _at(0.30 + rng.uniform(-0.08, 0.08), 0.46)
        bend = root + _at(-0.12, 0.34)
        shapes = [_limb(root, bend, 0.16, 0.2), _limb(bend, tip, 0.2, 0.15)]
        sheet.group([_ruffled(s, "fluffy", rng) for s in shapes], _mix(main, second, 0.3))
        return
    # Whip and brush: an arc whose bend is the wag.
    length = 0.75 if breed.tail == "brush" else 0.66
    angle = float(rng.uniform(190, 250)) if breed.tail == "brush" else lift
    wag = rng.uniform(4, 11) * (1 if breed.tail == "brush" else -1)
    widths = (
        (0.09, 0.13, 0.15, 0.13, 0.07, 0.02) if breed.tail == "brush" else (0.085, 0.075, 0.065, 0.055, 0.045, 0.035)
    )
    links = [root + _at(0.06, 0)]
    for _ in range(5):
        links.append(links[-1] + length / 5 * _direction(angle))
        angle += wag
    shapes = [_limb(links[i], links[i + 1], widths[i], widths[i + 1], 8) for i in range(5)]
    sheet.group(shapes, second if breed.marking == "saddle" and rng.random() < 0.6 else main, shade=0.1)


def _curtain(
    hip: Points, shoulder: Points, girth: float, leg: float, rng: np.random.Generator
) -> tuple[Points, list[Points]]:
    """Long hair that falls from the back nearly to the ground: its outline and its strands."""
    left, right = hip[0] - 0.95 * girth, shoulder[0] + 0.9 * girth
    top, low = hip[1] + 0.1 * girth, leg * rng.uniform(0.1, 0.3)
    tips = np.linspace(right, left, 13)
    edge = [(x, low + (0.16 if i % 2 else 0.0) + rng.uniform(0, 0.07)) for i, x in enumerate(tips)]
    outline = _smooth([(left, top), ((left + right) / 2, top + 0.55 * girth), (right, top), *edge])
    strands = []
    for x in np.linspace(left, right, 28)[1:-1]:
        sway, start = rng.uniform(-0.05, 0.05), top + rng.uniform(-0.2, 0.5) * girth
        strands.append(np.array([(x, start), (x + sway, (top + low) / 2), (x - sway / 2, low + 0.22)]))
    return outline, strands


def _head(breed: Breed, sheet: _Sheet, centre: Points, main: Colour, second: Colour, rng: np.random.Generator) -> None:
    tilt = rng.uniform(-16, 14)
    r = breed.head * rng.uniform(0.95, 1.06)

    def place(shape: Points) -> Points:
        return _turned(shape * r, tilt) + centre

    muzzle = breed.muzzle / breed.head * rng.uniform(0.92, 1.08)
    droop = -0.34 if breed.face == "sad" else -0.26
    tip = _at(0.5 + muzzle * 0.8, droop - 0.05 * muzzle)
    depth = 0.56 if breed.face in ("sad", "beard") else 0.46 if breed.fur != "silk" else 0.38
    mask = (
        second
        if breed.marking == "mask"
        else _mix(main, second, 0.85)
        if breed.marking in ("bib", "tan", "saddle")
        else main
    )
    if breed.marking in ("bib", "patches") or breed.face == "beard":
        mask = second if breed.marking != "patches" else main
    ear_colour = {"mask": second, "spots": second, "patches": second}.get(breed.marking, _mix(main, _INK, 0.12))
    if breed.marking == "saddle" or breed.face == "beard":
        ear_colour = _mix(main, _INK, 0.35)

    _ear(breed, sheet, place, ear_colour, rng, near=False)
    skull = _ellipse(_at(0, 0), 1.0, 0.96)
    if breed.face == "flat":
        nose = _at(0.5, -0.22)
        snout = _ellipse(_at(0.42, -0.34), 0.56, 0.46)
        sheet.group([place(skull), place(_ellipse(_at(0.2, -0.35), 0.86, 0.6))], main, [(place(snout), mask)])
        sheet.stroke(place(np.array([(0.12, 0.62), (0.3, 0.5), (0.5, 0.62)])), _mix(main, _INK, 0.5), 0.016)
        sheet.stroke(place(np.array([(0.16, 0.78), (0.32, 0.68), (0.46, 0.78)])), _mix(main, _INK, 0.5), 0.016)
    else:
        snout = _limb(_at(0.3, -0.22), tip, depth + 0.08, depth * 0.72)
        nose = tip + _at(depth * 0.45, depth * 0.38)
        markings = [(place(_limb(_at(0.5, -0.26), tip, depth + 0.05, depth * 0.8)), mask)]
        if breed.marking == "bib":
            markings.append((place(_limb(_at(0.42, 1.0), _at(0.5, -0.2), 0.13, 0.2)), second))
        if breed.marking == "patches":
            markings.append((place(_ellipse(_at(-0.1, 0.4), 0.62, 0.66)), second))
        if breed.marking == "spots":
            for _ in range(5):
                spot = _ellipse(_at(rng.uniform(-0.8, 0.9), rng.uniform(-0.5, 0.9)), 0.11, 0.1)
                markings.append((place(spot), second))
        if breed.face == "beard":
            x, y = tip
            beard = _smooth([(0.1, -0.4), (x + 0.1, y), (x + 0.25, y - 0.5), (x - 0.1, y - 1.05), (x - 0.65, y - 0.8)])
            sheet.group([_ruffled(place(beard), "wire", rng)], second, shade=0.1)
        shapes = [place(skull), place(snout)]
        if breed.fur in ("fluffy", "wire"):
            shapes[0] = _ruffled(shapes[0], breed.fur, rng)
        sheet.group(shapes, main, markings, shade=0.12)
    _mouth(breed, sheet, place, tip, depth, nose, second, rng)
    _eyes(breed, sheet, place, main, rng)
    sheet.spot(place(_ellipse(nose, 0.2, 0.155, -12)), (34, 28, 30))
    sheet.spot(place(_ellipse(nose + _at(0.04, 0.06), 0.06, 0.035, -12)), (150, 145, 150))
    if breed.poms:
        sheet.group([_ruffled(place(_ellipse(_at(-0.18, 0.78), 0.78, 0.62)), "curly", rng)], main)
    if breed.fur == "silk":
        lock = _smooth([(-0.5, 0.75), (0.1, 1.12), (0.5, 0.82), (0.0, 0.72), (-0.7, 0.1)])
        sheet.group([place(lock)], main, shade=0)
    _ear(breed, sheet, place, ear_colour, rng, near=True)


def _mouth(
    breed: Breed,
    sheet: _Sheet,
    place: _Placer,
    tip: Points,
    depth: float,
    nose: Points,
    second: Colour,
    rng: np.random.Generator,
) -> None:
    if breed.face == "flat":
        smile = np.array([(0.14, -0.6), (0.3, -0.68), (0.48, -0.48), (0.66, -0.68), (0.8, -0.58)])
        sheet.stroke(place(smile), (20, 16, 18), 0.02)
        if rng.random() < 0.5:
            sheet.group([place(_ellipse(_at(0.48, -0.76), 0.13, 0.17))], (232, 120, 130), shade=0)
        return
    if rng.random() < 0.45:
        tongue = _limb(
            tip + _at(-0.15, -depth * 0.55), tip + _at(-0.1, -depth * 0.55 - rng.uniform(0.2, 0.4)), 0.16, 0.14
        )
        sheet.group([place(tongue)], (232, 120, 130), shade=0)
    corner = _at(0.42, -0.22 - depth * 0.62)
    middle = (corner + tip) / 2 + _at(0.05, -depth * 0.48)
    smile = _quadratic(corner, middle, nose + _at(-0.02, -0.3))
    sheet.stroke(place(smile), _INK, 0.02)


def _quadratic(a: Points, b: Points, c: Points) -> Points:
    t = np.linspace(0, 1, 12)[:, None]
    curve: Points = (1 - t) ** 2 * a + 2 * t * (1 - t) * b + t**2 * c
    return curve


def _eyes(breed: Breed, sheet: _Sheet, place: _Placer, main: Colour, rng: np.random.Generator) -> None:
    look = rng.uniform(-0.05, 0.05, 2)
    big = 0.2 if breed.face == "flat" else 0.165
    spread = (-0.02, 0.82) if breed.face == "flat" else (0.12, 0.66)
    for x, size in ((spread[1], big * 0.86), (spread[0], big)):
        eye = _at(x, 0.2 if breed.face != "flat" else 0.12)
        sheet.spot(place(_ellipse(eye, size * 1.22, size * 1.32)), _INK)
        sheet.spot(place(_ellipse(eye, size, size * 1.1)), (250, 250, 250))
        pupil = eye + _at(0.05, -0.01) + look
        sheet.spot(place(_ellipse(pupil, size * 0.72, size * 0.8)), (52, 34, 26))
        sheet.spot(place(_ellipse(pupil + _at(-0.03, 0.06), size * 0.26, size * 0.26)), (255, 255, 255))
        if breed.face == "sad":
            lid = np.vstack([_ellipse(eye + _at(0, 0.02), size * 1.3, size * 1.4)[:21], eye + _at(size * -1.2, -0.02)])
            sheet.spot(place(_turned(lid - eye, 14) + eye), _mix(main, _INK, 0.2))
        if breed.face == "beard":
            brow = _limb(eye + _at(-0.14, 0.26), eye + _at(0.16, 0.3), 0.09, 0.07)
            sheet.group([_ruffled(place(brow), "wire", rng)], _mix(main, _WHITE, 0.55), shade=0)


def _ear(breed: Breed, sheet: _Sheet, place: _Placer, colour: Colour, rng: np.random.Generator, *, near: bool) -> None:
    inner = (226, 164, 160)
    sway = rng.uniform(-8, 8)
    base = _at(-0.5, 0.55) if near else _at(0.5, 0.72)
    if not near:
        colour = _mix(colour, _INK, 0.18)

    def hung(points: Sequence[tuple[float, float]]) -> Points:
        shape = _turned(_smooth(points), sway)
        if not near:
            shape = shape * np.array([-0.72, 0.9])
        return place(shape + base)

    if breed.ears in ("drop", "long"):
        length = 1.25 if breed.ears == "drop" else 1.95
        wide = 0.36 if breed.ears == "drop" else 0.42
        if not near:
            length *= 0.55
        ear = [
            (0.12, 0.14),
            (-0.2, 0.12),
            (-wide, -0.4 * length),
            (-wide * 0.8, -length),
            (0.0, -length * 0.98),
            (0.16, -0.4 * length),
        ]
        shape = hung(ear)
        sheet.group([_ruffled(shape, breed.fur if breed.fur == "curly" else "smooth", rng)], colour, shade=0.15)
        if breed.fur == "silk" and near:
            for k in np.linspace(-0.25, 0.05, 4):
                strand = np.array([(k, -0.2), (k - 0.05, -length * 0.9)])
                sheet.stroke(place(_turned(strand, sway) + base), _mix(colour, _INK, 0.3), 0.015)
        return
    if breed.ears == "button":
        ear = [(-0.3, -0.05), (-0.25, 0.36), (0.12, 0.42), (0.34, 0.1), (0.3, -0.22), (0.05, -0.1)]
        sheet.group([hung(ear)], colour, shade=0.15)
        return
    tall, wide = {"prick": (1.0, 0.30), "bat": (1.05, 0.44), "tuft": (0.52, 0.26)}[breed.ears]
    outer = [(-wide, -0.2), (-wide * 0.95, 0.35 * tall), (-0.12, tall), (wide * 0.7, 0.42 * tall), (wide, -0.15)]
    sheet.group([hung(outer)], colour, shade=0)
    pink = [
        (-wide * 0.55, -0.02),
        (-wide * 0.5, 0.34 * tall),
        (-0.08, 0.76 * tall),
        (wide * 0.38, 0.36 * tall),
        (wide * 0.5, 0),
    ]
    sheet.spot(hung(pink), inner if near else _mix(inner, _INK, 0.2))


# ── the background ───────────────────────────────────────────────────────────────────────────────────────────────────


_SCENES = {  # the sky above and at the horizon, the ground near and far
    "meadow": ((142, 196, 232), (214, 234, 244), (126, 176, 84), (88, 138, 62)),
    "room": ((226, 206, 178), (238, 222, 200), (166, 116, 76), (136, 92, 60)),
    "snow": ((176, 196, 216), (226, 234, 242), (240, 244, 250), (208, 218, 232)),
    "beach": ((120, 190, 222), (196, 230, 238), (232, 210, 160), (212, 186, 134)),
    "street": ((170, 176, 186), (206, 208, 212), (136, 136, 142), (110, 110, 118)),
    "studio": ((92, 112, 146), (134, 150, 178), (104, 122, 154), (82, 98, 128)),
    "evening": ((246, 178, 120), (252, 222, 176), (120, 130, 72), (92, 100, 58)),
}


def _background(rng: np.random.Generator, size: int, horizon: float) -> Image.Image:
    """One of the scenes, picked without regard to the breed, so that a background tells nothing."""
    scene = list(_SCENES)[int(rng.integers(len(_SCENES)))]
    sky_top, sky_low, near, far = (_varied(c, rng, 16) for c in _SCENES[scene])
    y = np.linspace(0, 1, size)[:, None]
    above = (y / horizon).clip(0, 1)
    below = ((y - horizon) / (1 - horizon)).clip(0, 1)
    sky = np.array(sky_top) * (1 - above) + np.array(sky_low) * above
    ground = np.array(far) * (1 - below) + np.array(near) * below
    column = np.where(y < horizon, sky, ground).astype(np.uint8)[:, None, :]
    picture = Image.fromarray(column).resize((size, size))
    draw = ImageDraw.Draw(picture)
    line = horizon * size

    def ellipse(x: float, y: float, rx: float, ry: float, colour: Colour) -> None:
        draw.ellipse((x - rx, y - ry, x + rx, y + ry), fill=colour)

    if scene in ("meadow", "evening"):
        for _ in range(3):  # hills
            ellipse(
                rng.uniform(0, size),
                line + 0.1 * size,
                rng.uniform(0.25, 0.5) * size,
                0.2 * size,
                _mix(far, sky_low, 0.35),
            )
        lawn = Image.fromarray(column[int(line) :]).resize((size, size - int(line)))
        picture.paste(lawn, (0, int(line)))
        _tufts(draw, rng, size, line, _mix(near, _INK, 0.25))
    elif scene == "room":
        draw.rectangle((0, line - 0.02 * size, size, line), fill=_mix(far, _INK, 0.2))
        x = rng.uniform(0.05, 0.6) * size
        frame = (x, 0.08 * size, x + 0.28 * size, 0.3 * size)
        draw.rectangle(frame, fill=_mix(far, _INK, 0.1))
        inset = 0.02 * size
        draw.rectangle(
            (frame[0] + inset, frame[1] + inset, frame[2] - inset, frame[3] - inset),
            fill=_varied((150, 190, 210), rng, 40),
        )
        for k in range(1, 6):  # boards
            board = line + (size - line) * (k / 6) ** 1.4
            draw.line((0, board, size, board), fill=_mix(near, _INK, 0.18), width=3)
    elif scene == "snow":
        for _ in range(50):
            flake = rng.uniform(0.002, 0.009) * size
            ellipse(rng.uniform(0, size), rng.uniform(0, size), flake, flake, (252, 253, 255))
    elif scene == "beach":
        draw.rectangle((0, line - 0.12 * size, size, line), fill=_varied((70, 150, 190), rng))
        ellipse(rng.uniform(0.1, 0.9) * size, 0.12 * size, 0.07 * size, 0.07 * size, (255, 236, 170))
        for _ in range(60):
            ellipse(rng.uniform(0, size), rng.uniform(line, size), 3, 2, _mix(near, _INK, 0.2))
    elif scene == "street":
        x = -rng.uniform(0, 0.2) * size
        while x < size:  # houses
            width = rng.uniform(0.16, 0.34) * size
            draw.rectangle((x, rng.uniform(0.1, 0.35) * size, x + width, line), fill=_varied((186, 132, 112), rng, 34))
            x += width
    return picture


def _tufts(draw: ImageDraw.ImageDraw, rng: np.random.Generator, size: int, line: float, colour: Colour) -> None:
    for _ in range(70):
        x, y = rng.uniform(0, size), rng.uniform(line, size)
        h = 0.012 * size + 0.02 * (y - line)
        draw.line((x - h / 3, y - h, x, y, x + h / 3, y - h), fill=colour, width=4)


def _foreground(picture: Image.Image, rng: np.random.Generator) -> None:
    """Something that hides a part of the dog: a bush, a tree's trunk, or a fence."""
    draw, size = ImageDraw.Draw(picture), picture.width
    what = rng.choice(["bush", "trunk", "fence"])
    if what == "bush":
        leaf = _varied((84, 130, 72), rng, 20)
        x, y = rng.uniform(0.1, 0.9) * size, rng.uniform(0.9, 1.05) * size
        for k in range(14):
            r = rng.uniform(0.05, 0.1) * size
            dx, dy = rng.uniform(-0.2, 0.2) * size, rng.uniform(-0.16, 0.05) * size
            draw.ellipse((x + dx - r, y + dy - r, x + dx + r, y + dy + r), fill=_mix(leaf, _INK, 0.03 * (k % 6)))
    elif what == "trunk":
        bark = _varied((124, 92, 70), rng, 14)
        x, width = rng.uniform(0.05, 0.95) * size, rng.uniform(0.06, 0.11) * size
        draw.rectangle((x - width / 2, 0, x + width / 2, size), fill=bark)
        draw.rectangle((x + width * 0.2, 0, x + width / 2, size), fill=_mix(bark, _INK, 0.2))
    else:
        wood = _varied((222, 212, 196), rng, 14)
        top = rng.uniform(0.74, 0.86) * size
        for x in np.arange(rng.uniform(0, 0.1) * size, size, 0.14 * size):
            draw.rectangle((x, top, x + 0.035 * size, size), fill=wood, outline=_mix(wood, _INK, 0.4), width=3)
        rail = (-4, top + 0.05 * size, size + 4, top + 0.085 * size)
        draw.rectangle(rail, fill=wood, outline=_mix(wood, _INK, 0.4), width=3)
