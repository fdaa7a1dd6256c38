"""What acclimate asks of a network: logits, features and named inner activations in one forward pass."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from acclimate.errors import UsageError, nearest

FEATURES = "features"
"""The name under which the input of the head is known."""


class Output(NamedTuple):
    """What one forward pass gives."""

    logits: Tensor  # (N, K) or (N, K, H, W)
    features: Tensor  # what enters the head
    taps: dict[str, Tensor]  # the outputs of the named sub-modules


class _Keep:
    """A forward hook that puts one activation into a store.

    Hook and network share the store as an ordinary object, so a deep copy of both shares a store of its own and never
    writes into the original's. (A closure would be copied by reference.)
    """

    def __init__(self, store: dict[str, Any], name: str) -> None:
        self.store, self.name = store, name


class _KeepInput(_Keep):
    def __call__(self, module: nn.Module, args: tuple[Any, ...]) -> None:
        self.store[self.name] = args[0] if args else None


class _KeepOutput(_Keep):
    def __call__(self, module: nn.Module, args: tuple[Any, ...], output: Any) -> None:
        self.store[self.name] = output


class Network(nn.Module):
    """Any module, read as *body* then *head*.

    ``net(x)`` returns ``Output(logits, features, taps)``: features are the first positional argument of the sub-module
    named ``head``, logits the module's output (a tensor, or an object with ``.logits``), taps the outputs of named
    sub-modules; where a sub-module is called more than once, its last call counts. Logit maps ``(N, K, h, w)`` of
    another size than the image are brought to ``(N, K, H, W)`` bilinearly. Forward hooks do the reading; they are
    registered here, before any compilation, because hooks registered later never fire in compiled code.

    Args:
        module: any ``nn.Module`` that takes ``(N, C, H, W)``.
        head: name of the sub-module that turns features into logits, as in ``module.named_modules()``.
        input_shape: ``(C, H, W)`` of the images it will see; used for one trial forward pass.
        taps: names of further sub-modules to read.
        align: where methods that align features do so: ``"features"`` (default) or one of the taps.
        normalisation: per-channel ``(mean, std)`` of the input in units of 0..1; default 0.5 and 0.5.
        lr_scales: sub-module -> what the learning rate of its parameters is multiplied by, whichever player moves
            them; for layers that were trained before (``{"layer1": 0.1}``).

    Attributes:
        shapes: shape without the batch of ``"features"``, ``"logits"`` and each tap, from the trial pass.
        input_shape, normalisation, lr_scales: as given.
        recipe: ``{"name": ..., "settings": {...}}`` where :func:`acclimate.networks.build` made it, else None.

    Raises :class:`UsageError` if the head, a tap or a sub-module of ``lr_scales`` does not exist, if head or tap is never
    called, or if the output has no class dimension.
    """

    def __init__(
        self,
        module: nn.Module,
        head: str = "fc",
        *,
        input_shape: tuple[int, int, int] = (3, 32, 32),
        taps: Sequence[str] = (),
        align: str | None = None,
        normalisation: tuple[Sequence[float], Sequence[float]] | None = None,
        lr_scales: Mapping[str, float] | None = None,
    ) -> None:
        super().__init__()
        channels = input_shape[0]
        mean, std = normalisation or ([0.5] * channels, [0.5] * channels)
        if len(mean) != channels or len(std) != channels:
            raise UsageError(f"give normalisation one mean and one std for each of the {channels} channels")
        if align not in (None, FEATURES, *taps):
            raise UsageError(f"align={align!r} is neither 'features' nor one of the taps{nearest(str(align), taps)}")
        self.module = module
        self.head_name, self.tap_names = head, tuple(taps)
        self.input_shape = tuple(input_shape)
        self.normalisation = (tuple(mean), tuple(std))
        self.lr_scales = dict(lr_scales or {})
        for name in self.lr_scales:
            self._named(name, "a key of lr_scales")
        self.recipe: dict[str, Any] | None = None
        self._align = align or FEATURES
        self._kept: dict[str, Any] = {}
        self._named(head, "head").register_forward_pre_hook(_KeepInput(self._kept, FEATURES))
        for name in self.tap_names:
            self._named(name, "tap").register_forward_hook(_KeepOutput(self._kept, name))
        self.shapes = self._probe()

    def forward(self, x: Tensor) -> Output:
        """Logits, features and taps of images ``(N, C, H, W)``."""
        self._kept.clear()
        logits = self.module(x)
        if not isinstance(logits, Tensor):
            logits = logits.logits
        if logits.ndim == 4 and logits.shape[2:] != x.shape[2:]:
            logits = F.interpolate(logits, size=x.shape[2:], mode="bilinear", align_corners=False)
        output = Output(logits, self._kept[FEATURES], {name: self._kept[name] for name in self.tap_names})
        # Activations left in the store would keep a whole graph alive and could not be deep-copied.
        self._kept.clear()
        return output

    def features(self, x: Tensor) -> Tensor:
        """What enters the head for images ``(N, C, H, W)``."""
        return self(x).features

    def aligned(self, output: Output) -> Tensor:
        """The activations of ``output`` at which methods align the domains (see ``align``)."""
        return output.features if self._align == FEATURES else output.taps[self._align]

    @property
    def align(self) -> str:
        """``"features"`` or the name of a tap: where methods align the domains."""
        return self._align

    @property
    def head(self) -> nn.Module:
        """The sub-module that turns features into logits."""
        return self.module.get_submodule(self.head_name)

    def head_parameters(self) -> list[nn.Parameter]:
        """The parameters of the head."""
        return list(self.head.parameters())

    def body_parameters(self) -> list[nn.Parameter]:
        """All parameters that are not the head's."""
        head = {id(parameter) for parameter in self.head.parameters()}
        return [parameter for parameter in self.parameters() if id(parameter) not in head]

    def _named(self, name: str, what: str) -> nn.Module:
        known = {known: module for known, module in self.module.named_modules() if known}
        if name not in known:
            top = ", ".join(child for child, _ in self.module.named_children()) or "none"
            raise UsageError(
                f"{type(self.module).__name__} has no sub-module {name!r} to serve as {what}{nearest(name, known)} "
                f"(top level: {top})"
            )
        return known[name]

    @torch.no_grad()
    def _probe(self) -> dict[str, tuple[int, ...]]:
        """Shapes of all outputs, from one forward pass that leaves no trace."""
        kind = type(self.module).__name__
        parameter = next(self.parameters(), torch.empty(0))
        x = torch.zeros(1, *self.input_shape, device=parameter.device, dtype=parameter.dtype)
        modes = {module: module.training for module in self.modules()}
        self.eval()
        try:
            with torch.random.fork_rng(devices=[x.device] if x.is_cuda else []):
                given = self.module(x)
        except Exception as error:
            raise UsageError(
                f"{kind} does not take images of shape {self.input_shape} ({error}); "
                "give the right input_shape=(C, H, W)"
            ) from error
        finally:
            for module, mode in modes.items():
                module.training = mode
        kept = dict(self._kept)
        self._kept.clear()
        for name in (FEATURES, *self.tap_names):
            what = f"head {self.head_name!r}" if name == FEATURES else f"tap {name!r}"
            if name not in kept:
                raise UsageError(f"{kind} never calls its {what}; name a sub-module that the forward pass uses")
            if not isinstance(kept[name], Tensor):
                raise UsageError(f"{what} of {kind} gives {type(kept[name]).__name__}, not a tensor; name another one")
        logits = given if isinstance(given, Tensor) else getattr(given, "logits", None)
        if not isinstance(logits, Tensor) or logits.ndim not in (2, 4):
            found = tuple(logits.shape) if isinstance(logits, Tensor) else type(given).__name__
            raise UsageError(f"{kind} gives {found}; its output needs a class dimension: (N, K) or (N, K, H, W)")
        size = self.input_shape[1:] if logits.ndim == 4 else ()
        shapes: Mapping[str, tuple[int, ...]] = {name: tuple(value.shape[1:]) for name, value in kept.items()}
        return {**shapes, "logits": (logits.shape[1], *size)}
