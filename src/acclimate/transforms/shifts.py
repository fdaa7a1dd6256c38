"""The axes along which one domain may differ from another, as data and as pure functions on batches.

With them a labelled source yields target domains whose shift is known exactly: each family isolates one way in which
a network, or its adaptation, fails (Deng & Zheng, "Are labels always necessary for classifier accuracy evaluation?",
CVPR 2021, call such sets meta-sets). At amounts of -1 and 1 a shift is severe, but a person still knows the image.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from pydantic import Field, field_validator
from torch import Tensor
from torch.nn import functional

from acclimate.errors import UsageError, nearest
from acclimate.random import generator
from acclimate.settings import Settings

Apply = Callable[[Tensor, Tensor, float, torch.Generator], tuple[Tensor, Tensor]]


class Shift(Settings):
    """One change of domain. Raises :class:`UsageError` for an unknown family or an amount outside [-1, 1]."""

    family: str  # a key of FAMILIES
    amount: float = Field(ge=-1, le=1)  # severity; 0 is no change, families without a sign use the absolute value

    @field_validator("family")
    @classmethod
    def _known(cls, name: str) -> str:
        _check(name)
        return name


@dataclass(frozen=True)
class Family:
    """How one kind of shift is made.

    ``apply`` takes ``(N, C, H, W)`` images in [0, 1], their labels, an amount other than 0 and a CPU generator; its
    images may leave [0, 1].
    """

    title: str
    kind: Literal["photometric", "geometric", "content"]
    apply: Apply
    signed: bool = True
    colour: bool = False  # changes images of three channels only
    least: float = 0.15  # the smallest severity that draw() asks for


def shift(x: Tensor, y: Tensor, by: Sequence[Shift], seed: int) -> tuple[Tensor, Tensor]:
    """The batch in another domain: the shifts are applied in order, each result is clamped to [0, 1].

    Args:
        x: ``(N, C, H, W)`` float images in [0, 1].
        y: ``(N, H, W)`` integer label maps with -1 = ignore, or ``(N,)`` classes.
        by: the shifts; an amount of 0 changes no bit.
        seed: of all draws. They do not depend on amounts: with the same seed a larger amount is more of the same.

    What comes into view from outside is the reflected image and the label -1. Only "proportion" may return fewer
    images, and only of classes. Image i does not depend on the others, except where "proportion" picks a
    subset. Inputs are not changed; draws are made on the CPU, so devices agree.

    Raises :class:`UsageError` for images or labels of another kind or shape.
    """
    maps = x.shape[:1] + x.shape[2:]
    if x.ndim != 4 or not x.is_floating_point() or not len(x):
        raise UsageError(f"pass float images (N, C, H, W), at least one, not {x.dtype} {tuple(x.shape)}")
    if y.is_floating_point() or not y.is_signed() or y.shape not in (maps, maps[:1]):
        raise UsageError(
            f"pass signed integer labels {tuple(maps)} or {tuple(maps[:1])} with these images, not {y.dtype} {tuple(y.shape)}"
        )
    for place, one in enumerate(by):
        family = FAMILIES[one.family]
        amount = one.amount if family.signed else abs(one.amount)
        if amount and (x.shape[1] == 3 or not family.colour):
            x, y = family.apply(x, y, amount, generator("shift", seed, place, one.family))
            x = x.clamp(0, 1)
    return x, y


def draw(
    count: int, seed: int, families: Sequence[str] | None = None, compound: float = 0.25, channels: int = 1
) -> list[tuple[Shift, ...]]:
    """``count`` domains: each one shift, or two of different families in a row.

    Every family appears equally often (within one). Its amounts are stratified: of n, one lies in each n-th of
    [-1, -least] u [least, 1], or of [least, 1] where the family has no sign; ``least`` is 0.15 but for inversion.

    Args:
        count: of domains.
        seed: of all draws.
        families: to draw from; all by default. Those that need colour are left out for images that have none.
        compound: share of the domains that get two shifts; of a single family none does.
        channels: of the images.

    Raises :class:`UsageError` for an unknown family, a negative count, a share outside [0, 1], or where no family is
    left.
    """
    names = list(dict.fromkeys(FAMILIES if families is None else families))
    for name in names:
        _check(name)
    names = [name for name in names if channels == 3 or not FAMILIES[name].colour]
    if not names:
        raise UsageError(f"name at least one family of shifts that images of {channels} channels can have")
    if count < 0 or not 0 <= compound <= 1:
        raise UsageError(f"ask for 0 or more domains and a share of compounds in 0..1, not {count} and {compound}")
    random = generator("shifts", seed)
    pairs = round(compound * count) if len(names) > 1 else 0
    order = torch.randperm(count, generator=random).tolist()
    deck: list[str] = []
    while len(deck) < count + pairs:
        hand = [names[i] for i in torch.randperm(len(names), generator=random).tolist()]
        if deck and hand[0] == deck[-1]:
            hand.append(hand.pop(0))  # neighbours, of which compounds are made, differ
        deck += hand
    del deck[count + pairs :]
    amounts = {name: iter(_amounts(FAMILIES[name], deck.count(name), random)) for name in names}
    shifts = iter([Shift(family=name, amount=next(amounts[name])) for name in deck])
    return [tuple(next(shifts) for _ in range(2 if place < pairs else 1)) for place in order]


def _check(name: str) -> None:
    if name not in FAMILIES:
        raise UsageError(
            f"unknown family of shifts {name!r}{nearest(name, FAMILIES)} (known: {', '.join(sorted(FAMILIES))})"
        )


def _amounts(family: Family, count: int, random: torch.Generator) -> list[float]:
    strata = torch.randperm(count, generator=random) + torch.rand(count, generator=random, dtype=torch.float64)
    t = strata / max(count, 1)
    if family.signed:
        t = 2 * t - 1
    severity = family.least + (1 - family.least) * t.abs()
    return [round(a, 4) for a in torch.where(t < 0, -severity, severity).tolist()]


def _per_image(x: Tensor, make: Callable[[], Tensor]) -> Tensor:
    """One draw per image, so that image i does not depend on how many there are."""
    return torch.stack([make() for _ in range(len(x))]).to(x.device)


def _normal(x: Tensor, shape: Sequence[int], random: torch.Generator) -> Tensor:
    return _per_image(x, lambda: torch.randn(*shape, generator=random)).to(x.dtype)


def _uniform(x: Tensor, numbers: int, random: torch.Generator) -> Tensor:
    """``(numbers, N)`` uniform in [-1, 1)."""
    return _per_image(x, lambda: 2 * torch.rand(numbers, generator=random) - 1).to(x.dtype).T


def _smooth_field(x: Tensor, channels: int, knots: int, random: torch.Generator) -> Tensor:
    """Low-pass noise ``(N, channels, H, W)``: normal values at ``knots`` x ``knots`` points, bicubic between them."""
    coarse = _normal(x, (channels, knots, knots), random)
    return functional.interpolate(coarse, x.shape[-2:], mode="bicubic", align_corners=True)


def _mean(x: Tensor) -> Tensor:
    return x.mean((1, 2, 3), keepdim=True)


# Photometric: images change, labels do not.


def _brightness(x: Tensor, y: Tensor, amount: float, random: torch.Generator) -> tuple[Tensor, Tensor]:
    return x + 0.4 * amount, y


def _contrast(x: Tensor, y: Tensor, amount: float, random: torch.Generator) -> tuple[Tensor, Tensor]:
    return torch.lerp(_mean(x), x, 1 + 0.75 * amount), y


def _gamma(x: Tensor, y: Tensor, amount: float, random: torch.Generator) -> tuple[Tensor, Tensor]:
    return x.clamp_min(0) ** (3**amount), y


def _inversion(x: Tensor, y: Tensor, amount: float, random: torch.Generator) -> tuple[Tensor, Tensor]:
    # About the image's own mean, so that brightness stays and only the order of grey levels turns round.
    return torch.lerp(_mean(x), x, 1 - 2 * amount), y


def _noise(x: Tensor, y: Tensor, amount: float, random: torch.Generator) -> tuple[Tensor, Tensor]:
    if amount > 0:
        return x + 0.35 * amount * _normal(x, x.shape[1:], random), y
    # A median rather than a Gaussian: it takes noise away and leaves edges, which "blur" would not.
    padded = functional.pad(x, (1, 1, 1, 1), mode="replicate")
    return torch.lerp(x, padded.unfold(2, 3, 1).unfold(3, 3, 1).flatten(-2).median(-1).values, -amount), y


def _blur(x: Tensor, y: Tensor, amount: float, random: torch.Generator) -> tuple[Tensor, Tensor]:
    return blurred(x, amount * 3 / 64 * min(x.shape[-2:])), y


def blurred(x: Tensor, sigma: float) -> Tensor:
    """Images ``(N, C, H, W)`` after a Gaussian blur of ``sigma`` pixels, borders replicated; 0 leaves them as they are."""
    if sigma == 0:
        return x
    reach = math.ceil(3 * sigma)
    kernel = torch.exp(-(torch.arange(-reach, reach + 1, device=x.device) ** 2) / (2 * sigma**2)).to(x.dtype)
    kernel = kernel / kernel.sum()
    planes = x.flatten(0, 1)[:, None]
    planes = functional.conv2d(functional.pad(planes, (reach, reach, 0, 0), mode="replicate"), kernel.view(1, 1, 1, -1))
    planes = functional.conv2d(functional.pad(planes, (0, 0, reach, reach), mode="replicate"), kernel.view(1, 1, -1, 1))
    return planes.view_as(x)


def _texture(x: Tensor, y: Tensor, amount: float, random: torch.Generator) -> tuple[Tensor, Tensor]:
    field = _smooth_field(x, 1, 16, random)
    field = field - _mean(field)
    return x + 0.3 * amount * field / field.abs().amax((1, 2, 3), keepdim=True), y


def _vignette(x: Tensor, y: Tensor, amount: float, random: torch.Generator) -> tuple[Tensor, Tensor]:
    down, across = (torch.linspace(-1, 1, side, device=x.device, dtype=x.dtype) for side in x.shape[-2:])
    return x * (1 - 0.8 * amount * (down[:, None] ** 2 + across**2) / 2), y


def _hue(x: Tensor, y: Tensor, amount: float, random: torch.Generator) -> tuple[Tensor, Tensor]:
    from kornia import enhance  # imported here: it costs a third of a second that most runs need not pay

    return enhance.adjust_hue(x, amount * math.pi), y


def _saturation(x: Tensor, y: Tensor, amount: float, random: torch.Generator) -> tuple[Tensor, Tensor]:
    from kornia import enhance

    return enhance.adjust_saturation(x, 1 + (2 * amount if amount > 0 else amount)), y


# Geometric: images and label maps move together; classes stay.


def _warp(x: Tensor, y: Tensor, grid: Tensor) -> tuple[Tensor, Tensor]:
    """Images and label maps seen through ``(N, H, W, 2)`` places in [-1, 1], as in augment.move."""
    moved = functional.grid_sample(x, grid, padding_mode="reflection", align_corners=False)
    if y.ndim == 1:
        return moved, y
    # Labels travel raised by one: the zeros that fill the outside then come back as -1, "ignore".
    raised = functional.grid_sample((y[:, None] + 1).to(grid.dtype), grid, mode="nearest", align_corners=False)
    return moved, raised[:, 0].to(y.dtype) - 1


def _view(x: Tensor, zoom: Tensor, across: Tensor, down: Tensor) -> Tensor:
    """Grid of windows of ``zoom`` times the side around (``across``, ``down``), each ``(N,)`` or ``(1,)``."""
    none = torch.zeros_like(zoom)
    theta = torch.stack([zoom, none, across, none, zoom, down], 1).view(-1, 2, 3)
    return functional.affine_grid(theta.expand(len(x), 2, 3), [len(x), 1, *x.shape[-2:]], align_corners=False)


def _scale(x: Tensor, y: Tensor, amount: float, random: torch.Generator) -> tuple[Tensor, Tensor]:
    centre = x.new_zeros(1)
    return _warp(x, y, _view(x, x.new_full((1,), 2**-amount), centre, centre))


def _affine(x: Tensor, y: Tensor, amount: float, random: torch.Generator) -> tuple[Tensor, Tensor]:
    # The turn is the domain's, shear and shift vary from image to image.
    angle, size = amount * math.pi / 4, abs(amount)
    shear, across, down = _uniform(x, 3, random)
    shear = 0.25 * size * shear
    cos, sin = math.cos(angle) * torch.ones_like(shear), math.sin(angle) * torch.ones_like(shear)
    ratio = x.shape[-2] / x.shape[-1]  # turn and shear in pixels, not in the unit square
    theta = torch.stack(
        [
            *(cos, (shear * cos - sin) * ratio, 0.2 * size * across),
            *(sin / ratio, shear * sin + cos, 0.2 * size * down),
        ],
        1,
    ).view(-1, 2, 3)
    return _warp(x, y, functional.affine_grid(theta, [len(x), 1, *x.shape[-2:]], align_corners=False))


def _elastic(x: Tensor, y: Tensor, amount: float, random: torch.Generator) -> tuple[Tensor, Tensor]:
    centre = x.new_zeros(1)
    field = _smooth_field(x, 2, 6, random)
    field = field / field.norm(dim=1).amax((1, 2))[:, None, None, None]
    # Of the shorter side, in pixels; the grid counts half sides.
    pixels = 0.06 * amount * min(x.shape[-2:])
    unit = x.new_tensor([2 * pixels / x.shape[-1], 2 * pixels / x.shape[-2]])
    return _warp(x, y, _view(x, x.new_ones(1), centre, centre) + field.permute(0, 2, 3, 1) * unit)


def _crop(x: Tensor, y: Tensor, amount: float, random: torch.Generator) -> tuple[Tensor, Tensor]:
    share = 1 - 0.6 * amount
    across, down = _uniform(x, 2, random) * (1 - share)
    return _warp(x, y, _view(x, torch.full_like(across, share), across, down))


# Content: what there is to see changes.


def _proportion(x: Tensor, y: Tensor, amount: float, random: torch.Generator) -> tuple[Tensor, Tensor]:
    if y.ndim == 1:
        kept = _rarer(y, amount, random)
        return x[kept], y[kept]
    share, steps = 0.6, 4
    height, width = (max(1, round(share * side)) for side in y.shape[1:])
    rows, columns = (
        [round(i * (side - part) / (steps - 1)) for i in range(steps)]
        for side, part in zip(y.shape[1:], (height, width))
    )
    corners = [(row, column) for row in rows for column in columns]
    shares = torch.stack([_foreground(y[:, r : r + height, c : c + width]) for r, c in corners], 1)
    draws = _per_image(x, lambda: torch.rand(2, generator=random))
    extreme = shares.argmax(1) if amount > 0 else shares.argmin(1)
    chosen = torch.where(draws[:, 0] < abs(amount), extreme, (draws[:, 1] * len(corners)).long())
    # Resized to the nearest pixel: interpolation would also blur and take noise away, which are other shifts.
    top, left = torch.tensor(corners, device=x.device)[chosen].T
    down, across = ((torch.arange(s, device=x.device) * p) // s for s, p in zip(y.shape[1:], (height, width)))
    at = torch.arange(len(x), device=x.device)[:, None, None]
    picked = (at, (top[:, None] + down)[:, :, None], (left[:, None] + across)[:, None, :])
    window = x.permute(0, 2, 3, 1)[picked].permute(0, 3, 1, 2).contiguous()
    return window, y[picked]


def _foreground(y: Tensor) -> Tensor:
    """Share of labelled pixels that are not of class 0, ``(N,)``."""
    return (y > 0).sum((1, 2)) / (y >= 0).sum((1, 2)).clamp_min(1)


def _rarer(y: Tensor, amount: float, random: torch.Generator) -> Tensor:
    """Indices kept: the first class (the last, for a negative amount) keeps a share of 10^-|amount|, the others more."""
    keys = torch.rand(len(y), generator=random).to(y.device)
    classes = y[y >= 0].unique().tolist()
    kept = [torch.nonzero(y < 0)[:, 0]]
    for rank, label in enumerate(classes if amount < 0 else classes[::-1]):
        members = torch.nonzero(y == label)[:, 0]
        share = 10 ** (-abs(amount) * rank / max(len(classes) - 1, 1))
        kept.append(members[keys[members].argsort()[: math.ceil(share * len(members))]])
    return torch.cat(kept).sort().values


FAMILIES: dict[str, Family] = {
    "brightness": Family("brighter or darker: up to 0.4 added", "photometric", _brightness),
    "contrast": Family("more or less contrast: 0.25 to 1.75 times", "photometric", _contrast),
    "gamma": Family("dark or bright tones spread out: exponent 1/3 to 3", "photometric", _gamma),
    # Below, the contrast is merely less, and at one half nothing is left to see.
    "inversion": Family("bright and dark exchanged", "photometric", _inversion, signed=False, least=0.7),
    "noise": Family("more noise (deviation up to 0.35), or a median filter", "photometric", _noise),
    "blur": Family("out of focus: Gaussian of up to 3/64 of the side", "photometric", _blur, signed=False),
    "texture": Family("smooth clouds of up to 0.3 added", "photometric", _texture, signed=False),
    "vignette": Family("corners darker or brighter by up to 80 %", "photometric", _vignette),
    "hue": Family("colours turned by up to half the wheel", "photometric", _hue, colour=True),
    "saturation": Family("colours grey to three times as strong", "photometric", _saturation, colour=True),
    "scale": Family("everything half to twice as large", "geometric", _scale),
    "affine": Family("turned by up to 45 degrees, sheared and shifted", "geometric", _affine),
    "elastic": Family("shapes bent by up to 6 % of the side", "geometric", _elastic, signed=False),
    "crop": Family("a part of the image: down to 0.4 of the side", "geometric", _crop, signed=False),
    "proportion": Family("other proportions of the classes", "content", _proportion),
}
"""All shifts by name."""
