"""The face model: a style-modulated generator with its encoder and discriminator."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from itertools import pairwise
from typing import Literal, cast, overload

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from invrestore._checks import check_count
from invrestore.errors import ShapeError
from invrestore.networks._latent import LatentModel, check_codes, check_pictures, check_widths

__all__ = ["Encoder", "FaceGAN", "ResidualDiscriminator", "StyleGenerator"]

_SLOPE = 0.2
_MEAN_SHARE = 0.005  # Weight of a batch in the running mean of w
_CODES_SHARE = 0.002  # And in those of the codes, of which there are hundreds of dimensions


class FaceGAN(LatentModel):
    """Generator, encoder and discriminator of aligned images, such as faces, trained together.

    Args:
        size: Side of the images in pixels, a power of 2.
        channels: Image channels.
        latent_dim: Length of z and of w.
        generator_widths: Feature channels of the generator from `size / 2` down to 4 pixels.
        encoder_widths: Feature channels of the encoder, likewise.
        discriminator_widths: Feature channels of the discriminator, likewise.
        mapping_layers: Layers from z to w.
        minibatch_std: See :class:`ResidualDiscriminator`.

    Shapes:
        z: (N, latent_dim), standard normal.
        returns: (N, channels, size, size), in [0, 1].

    Raises:
        RangeError: Widths do not fit the size, size is not a power of 2, or latent_dim or mapping_layers is below 1.
        ShapeError: z has another shape.

    Example:
        >>> model = FaceGAN(16, 3, 8, (4, 8), (4, 8), (4, 8), mapping_layers=2)
        >>> model(torch.randn(2, 8)).shape
        torch.Size([2, 3, 16, 16])

    Reference:
        Karras et al. (2020), Analyzing and Improving the Image Quality of StyleGAN; Larsen et al. (2016),
        Autoencoding beyond pixels using a learned similarity metric.
    """

    generator: StyleGenerator
    discriminator: ResidualDiscriminator
    encoder: Encoder

    def __init__(
        self,
        size: int = 64,
        channels: int = 3,
        latent_dim: int = 256,
        generator_widths: Sequence[int] = (64, 128, 192, 192),
        encoder_widths: Sequence[int] = (32, 64, 128, 160),
        discriminator_widths: Sequence[int] = (32, 64, 128, 160),
        mapping_layers: int = 2,
        minibatch_std: bool = False,
    ) -> None:
        super().__init__(
            StyleGenerator(size, channels, latent_dim, generator_widths, mapping_layers),
            ResidualDiscriminator(size, channels, discriminator_widths, minibatch_std),
            Encoder(size, channels, latent_dim, encoder_widths),
        )
        self.size, self.channels, self.latent_dim = size, channels, latent_dim


class StyleGenerator(nn.Module):
    """Style-modulated generator without noise inputs: z -> w -> image, deterministic.

    A mapping of fully connected layers turns z, placed where the encoder's codes of real images lie and brought to
    length sqrt(latent_dim), into w. From a 4x4 array on, a learnt one plus a linear function of w, every 3x3
    convolution scales its input channels by a function of its own w and its output channels to unit variance. Every
    scale paints an image of twice its size, 2x2 pixels at each position; these are summed.

    Args:
        size: Side of the images in pixels, a power of 2.
        channels: Image channels.
        latent_dim: Length of z and of w.
        widths: Feature channels of each scale from `size / 2` down to 4 pixels; cost is dominated by the
            first, capacity by the last.
        mapping_layers: Layers from z to w.

    Attributes:
        num_layers: Convolutions, each with a w of its own in the space W+.
        w_mean: Mean of w over codes z (latent_dim,), followed while training.

    Shapes:
        z: (N, latent_dim), standard normal.
        image: (N, channels, size, size), in [0, 1].

    Raises:
        RangeError: The widths do not fit the size, or size is not a power of 2.
        ShapeError: z or w has another shape.

    Reference:
        Karras et al. (2020), Analyzing and Improving the Image Quality of StyleGAN; Ghosh et al. (2020), From
        Variational to Deterministic Autoencoders, for the density fitted to codes. Unlike the former: the 4x4
        array depends on w, so that an encoder can say what is where; no noise inputs, which would make a
        search for z noisy; features are convolved before they are doubled and end at half the image size;
        scales are positive and biases come before the scaling of outputs; the sum of the images is filtered, since
        blocks of 2x2 pixels easily leave a checkerboard, and squeezed into [0, 1]; the rates of all layers are equal.
    """

    w_mean: Tensor

    def __init__(
        self,
        size: int = 64,
        channels: int = 3,
        latent_dim: int = 256,
        widths: Sequence[int] = (64, 128, 192, 192),
        mapping_layers: int = 2,
    ) -> None:
        super().__init__()
        check_widths("StyleGenerator", "widths", size, widths)
        self.size, self.channels = size, channels
        self.latent_dim = check_count("StyleGenerator", "latent_dim", latent_dim)
        self.mapping = Mapping(latent_dim, check_count("StyleGenerator", "mapping_layers", mapping_layers))
        self.synthesis = Synthesis(channels, latent_dim, widths)
        self.num_layers = self.synthesis.num_layers
        self.register_buffer("w_mean", torch.zeros(latent_dim))

    def forward(self, z: Tensor) -> Tensor:
        """Generate images (N, channels, size, size) in [0, 1] from codes z (N, latent_dim)."""
        w = self.mapping(z)
        if self.training:
            with torch.no_grad():
                self.w_mean.lerp_(w.mean(dim=0).to(self.w_mean.dtype), _MEAN_SHARE)
        images: Tensor = self.synthesis(w)
        return images

    @torch.no_grad()
    def measure_w_mean(self, codes: int = 10_000, seed: int = 0) -> None:
        """Set `w_mean` to the mean of w over so many random codes."""
        z = torch.randn(codes, self.latent_dim, generator=torch.Generator().manual_seed(seed))
        self.w_mean.copy_(self.mapping(z.to(self.w_mean)).mean(dim=0))


class Mapping(nn.Module):
    """Fully connected layers from z (N, D), placed where codes lie and brought to length sqrt(D), to w (N, D).

    Attributes:
        shift: Mean (D,) of the codes that the layers were trained with.
        factor: Square root (D, D) of their covariance, lower triangular. Until they are set, z is such a code.
    """

    shift: Tensor
    factor: Tensor

    def __init__(self, latent_dim: int, layers: int) -> None:
        super().__init__()
        self.latent_dim = latent_dim
        self.layers = nn.ModuleList(nn.Linear(latent_dim, latent_dim) for _ in range(layers))
        for layer in self.layers:
            nn.init.kaiming_normal_(layer.weight, _SLOPE)  # type: ignore[arg-type]
            nn.init.zeros_(layer.bias)  # type: ignore[arg-type]
        self.register_buffer("shift", torch.zeros(latent_dim))
        self.register_buffer("factor", torch.eye(latent_dim))

    def forward(self, z: Tensor) -> Tensor:
        """Map z (N, D) to w (N, D)."""
        check_codes("StyleGenerator.mapping", z, self.latent_dim)
        code = self.shift.to(z.dtype) + z @ self.factor.to(z.dtype).mT
        w = code * (code.square().mean(dim=1, keepdim=True) + 1e-8).rsqrt()
        for layer in self.layers:
            w = F.leaky_relu(layer(w), _SLOPE)
        return w


class Synthesis(nn.Module):
    """Images from w, or from one w for each layer."""

    def __init__(self, channels: int, latent_dim: int, widths: Sequence[int]) -> None:
        super().__init__()
        coarse_first = list(reversed(widths))
        self.latent_dim = latent_dim
        self.start = nn.Parameter(torch.randn(1, coarse_first[0], 4, 4))
        self.layout = nn.Linear(latent_dim, self.start.numel(), bias=False)
        nn.init.normal_(self.layout.weight, std=1 / math.sqrt(latent_dim))
        self.layers = nn.ModuleList([StyledConv(coarse_first[0], coarse_first[0], latent_dim)])
        for coarse, fine in pairwise(coarse_first):
            self.layers += [StyledConv(coarse, fine, latent_dim), StyledConv(fine, fine, latent_dim)]
        self.images = nn.ModuleList(ToImage(width, channels, latent_dim) for width in coarse_first)
        self.num_layers = len(self.layers)
        self.to(memory_format=torch.channels_last)

    def forward(self, w: Tensor, features: tuple[Tensor, Tensor] | None = None, scale: int = 0) -> Tensor:
        """Make images in [0, 1].

        Args:
            w: One w for all layers (N, D), or one for each (N, num_layers, D).
            features: Result of :meth:`features` at `scale`, perhaps altered; None starts from w alone.
            scale: Number of the scale that `features` belong to, 0 for 4x4 pixels.

        Returns:
            Images (N, channels, size, size).
        """
        ws = self._of_layers(w)
        scales = self._scales(ws)
        x, image = self._begin(ws, scales) if features is None else features
        first = 0 if features is None else scale
        image = self._climb(ws, scales, x, image, first, self.num_layers // 2)[1]
        return 0.5 + 0.5 * torch.tanh(_without_checkerboard(image))

    def features(self, w: Tensor, scale: int) -> tuple[Tensor, Tensor]:
        """Return what a scale hands to the next one.

        Args:
            w: As in :meth:`forward`; layers up to 2 scale + 1 are read.
            scale: 0 for 4x4 pixels, 1 for 8x8 and so on.

        Returns:
            Feature maps (N, width, s, s), scaled for the next layer, and the image so far, twice as large.
        """
        ws = self._of_layers(w)
        scales = self._scales(ws)
        return self._climb(ws, scales, *self._begin(ws, scales), 0, scale)

    def _begin(self, ws: Tensor, scales: list[Tensor | None]) -> tuple[Tensor, Tensor]:
        start = self.start + self.layout(ws[:, 0]).unflatten(1, self.start.shape[1:]).to(self.start.dtype)
        x = (start * cast(Tensor, scales[0])[..., None, None]).contiguous(memory_format=torch.channels_last)
        x = self.layers[0](x, scales[0], scales[1])
        return x, self.images[0](x, ws[:, 0])

    def _climb(
        self, ws: Tensor, scales: list[Tensor | None], x: Tensor, image: Tensor, scale: int, until: int
    ) -> tuple[Tensor, Tensor]:
        for index in range(2 * scale + 1, 2 * until + 1):
            x = self.layers[index](x, scales[index], scales[index + 1])
            if index % 2:
                x = _doubled(x)
            else:
                image = _doubled(image) + self.images[index // 2](x, ws[:, index])
        return x, image

    def _scales(self, ws: Tensor) -> list[Tensor | None]:
        """Scales of the input channels of every layer, and None for those of the layer after the last."""
        layers = enumerate(cast(Iterable[StyledConv], self.layers))
        return [*(layer.scales(ws[:, index]) for index, layer in layers), None]

    def _of_layers(self, w: Tensor) -> Tensor:
        if w.ndim == 2 and w.shape[1] == self.latent_dim:
            return w[:, None].expand(-1, self.num_layers, -1)
        if w.ndim != 3 or w.shape[1:] != (self.num_layers, self.latent_dim):
            raise ShapeError(
                "StyleGenerator.synthesis",
                expected=f"w of shape (N, {self.latent_dim}) or (N, {self.num_layers}, {self.latent_dim})",
                found=str(tuple(w.shape)),
            )
        return w


def _doubled(x: Tensor) -> Tensor:
    return F.interpolate(x, scale_factor=2, mode="bilinear", align_corners=False)


def _without_checkerboard(x: Tensor) -> Tensor:
    """Filter rows and columns by (1, 2, 1) / 4, which takes out what alternates from pixel to pixel."""
    # Contiguous, since torch.compile expects that order of the gradient of this padding.
    padded = F.pad(x.contiguous(), (1, 1, 1, 1), mode="replicate")
    return F.avg_pool2d(F.avg_pool2d(padded, 2, 1), 2, 1)


class StyledConv(nn.Module):
    """3x3 convolution whose weights are scaled for each image, then a leaky ReLU.

    With scales s_ni > 0 made from w, image n sees the weights W_oi s_ni / sqrt(sum_i,taps (W_oi s_ni)^2).
    Scaling channels before and after one shared convolution gives the same as convolving every image with
    weights of its own. Since a leaky ReLU lets positive factors through, the scale of a layer's output and
    that of the next layer's input are one product, and each layer touches its features only three times.
    """

    def __init__(self, inputs: int, outputs: int, latent_dim: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(outputs, inputs, 3, 3) / math.sqrt(9 * inputs))
        self.bias = nn.Parameter(torch.zeros(outputs))
        self.style = nn.Linear(latent_dim, inputs)
        nn.init.normal_(self.style.weight, std=1 / math.sqrt(latent_dim))
        nn.init.constant_(self.style.bias, math.log(math.e - 1))  # softplus of it is 1

    def scales(self, w: Tensor) -> Tensor:
        """Positive scales (N, inputs) of the input channels for w (N, D)."""
        return F.softplus(self.style(w).to(self.weight.dtype))

    def forward(self, x: Tensor, scales: Tensor, next_scales: Tensor | None) -> Tensor:
        """Map scaled features (N, inputs, H, W) to features (N, outputs, H, W) scaled for the next layer."""
        power = scales.square() @ self.weight.square().sum(dim=(2, 3)).mT
        # sqrt(2) makes up for the half that the activation takes away.
        gain = (2 / (power.to(self.weight.dtype) + 1e-8)).sqrt()
        factor = gain if next_scales is None else gain * next_scales
        x = F.leaky_relu(F.conv2d(x, self.weight, self.bias, padding=1), _SLOPE, inplace=True)
        return x * factor.to(x.dtype)[..., None, None]


class ToImage(nn.Module):
    """1x1 convolution to the 2x2 pixels of each position, with weights scaled for each image."""

    def __init__(self, inputs: int, channels: int, latent_dim: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(4 * channels, inputs) * 0.1 / math.sqrt(inputs))
        self.bias = nn.Parameter(torch.zeros(4 * channels))
        self.style = nn.Linear(latent_dim, inputs)
        nn.init.normal_(self.style.weight, std=1 / math.sqrt(latent_dim))
        nn.init.ones_(self.style.bias)

    def forward(self, x: Tensor, w: Tensor) -> Tensor:
        """Map (N, inputs, H, W) and w (N, D) to (N, channels, 2 H, 2 W) in the type of the weights."""
        weight = self.weight * self.style(w).to(self.weight.dtype)[:, None]
        pixels = x.permute(0, 2, 3, 1).flatten(1, 2)
        blocks = (pixels @ weight.to(x.dtype).mT).to(self.weight.dtype) + self.bias
        return F.pixel_shuffle(blocks.unflatten(1, x.shape[-2:]).permute(0, 3, 1, 2), 2)


class DownBlock(nn.Module):
    """Residual block that halves the sides: two 3x3 convolutions, the second of stride 2."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.first = nn.Conv2d(inputs, inputs, 3, padding=1)
        self.second = nn.Conv2d(inputs, outputs, 3, stride=2, padding=1)
        self.skip = nn.Conv2d(inputs, outputs, 1, bias=False)
        for conv in (self.first, self.second):
            nn.init.kaiming_normal_(conv.weight, _SLOPE)
            nn.init.zeros_(conv.bias)  # type: ignore[arg-type]
        nn.init.kaiming_normal_(self.skip.weight, 1)

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, inputs, H, W) to (N, outputs, H / 2, W / 2)."""
        out = self.second(F.leaky_relu(self.first(F.leaky_relu(x, _SLOPE)), _SLOPE))
        halved: Tensor = (out + self.skip(F.avg_pool2d(x, 2))) * math.sqrt(0.5)
        return halved


class Trunk(nn.Module):
    """Features of an image in [0, 1] at every scale from half its size down to 4x4 pixels.

    The 2x2 pixels of a block enter as channels, so the costly first convolution works at half size.
    """

    def __init__(self, where: str, size: int, channels: int, widths: Sequence[int]) -> None:
        super().__init__()
        check_widths(where, "widths", size, widths)
        self.where, self.size, self.channels = where, size, channels
        self.stem = nn.Conv2d(4 * channels, widths[0], 3, padding=1)
        self.blocks = nn.ModuleList(DownBlock(a, b) for a, b in pairwise(widths))
        self.to(memory_format=torch.channels_last)

    def forward(self, x: Tensor) -> list[Tensor]:
        """Return features from `size / 2` to 4 pixels."""
        check_pictures(self.where, x, self.channels, self.size)
        blocks = F.pixel_unshuffle(2 * x - 1, 2).contiguous(memory_format=torch.channels_last)
        features = [self.stem(blocks)]
        for block in self.blocks:
            features.append(block(features[-1]))
        return features


class Encoder(nn.Module):
    """Residual network from an image to the mean and log-variance of its code z.

    The codes of all images together are not standard normal, however near each of them comes to it. Their mean
    and covariance are followed while training, so that random codes can be drawn where real ones lie, and taken
    over by the generator in the end: from then on standard normal codes are of this kind.

    Args:
        size: Side of the images in pixels, a power of 2.
        channels: Image channels.
        latent_dim: Length of z.
        widths: Feature channels from `size / 2` down to 4 pixels.

    Shapes:
        x: (N, channels, size, size), in [0, 1].
        mean, log_variance: (N, latent_dim) each; log_variance is kept in [-10, 4], and is that of the codes before
        :meth:`standardise`.

    Attributes:
        code_mean: Mean (latent_dim,) of the codes of real images.
        code_covariance: Their covariance (latent_dim, latent_dim).

    Raises:
        RangeError: The widths do not fit the size, or size is not a power of 2.
        ShapeError: x has another shape.
    """

    code_mean: Tensor
    code_covariance: Tensor

    def __init__(
        self,
        size: int = 64,
        channels: int = 3,
        latent_dim: int = 256,
        widths: Sequence[int] = (32, 64, 128, 160),
    ) -> None:
        super().__init__()
        self.register_buffer("code_mean", torch.zeros(latent_dim))
        self.register_buffer("code_covariance", torch.eye(latent_dim))
        self.trunk = Trunk("Encoder", size, channels, widths)
        self.reduce = nn.Conv2d(widths[-1], 64, 1)
        self.out = nn.Linear(64 * 16, 2 * check_count("Encoder", "latent_dim", latent_dim))
        nn.init.kaiming_normal_(self.reduce.weight, _SLOPE)
        nn.init.zeros_(self.out.bias)
        nn.init.normal_(self.out.weight, std=1 / 32)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Return mean and log-variance of the code of each image."""
        features = self.reduce(F.leaky_relu(self.trunk(x)[-1], _SLOPE))
        code = self.out(F.leaky_relu(features, _SLOPE).flatten(1))
        mean, log_variance = code.to(self.out.weight.dtype).chunk(2, dim=1)
        return mean, log_variance.clamp(-10, 4)

    @torch.no_grad()
    def follow(self, codes: Tensor, share: float = _CODES_SHARE) -> None:
        """Move mean and covariance by `share` towards those of some codes (N, latent_dim)."""
        codes = codes.detach().to(self.code_mean.dtype)
        self.code_mean.lerp_(codes.mean(dim=0), share)
        centred = codes - self.code_mean
        with torch.autocast(codes.device.type, enabled=False):
            self.code_covariance.lerp_(centred.mT @ centred / len(codes), share)

    @torch.no_grad()
    def place(self, z: Tensor) -> Tensor:
        """Give standard normal z (N, latent_dim) mean and covariance of the codes."""
        with torch.autocast(z.device.type, enabled=False):
            placed: Tensor = self.code_mean + z @ self._root().mT
        return placed

    @torch.no_grad()
    def standardise(self, mapping: Mapping) -> None:
        """Change codes so that they have mean 0 and covariance 1, and let a mapping undo that."""
        root, width = self._root(), len(self.code_mean)
        mapping.shift.add_(mapping.factor @ self.code_mean)
        mapping.factor.copy_(mapping.factor @ root)
        weight, bias = self.out.weight[:width], self.out.bias[:width] - self.code_mean
        weight.copy_(torch.linalg.solve_triangular(root, weight, upper=False))
        bias = torch.linalg.solve_triangular(root, bias[:, None], upper=False)[:, 0]
        self.out.bias[:width].copy_(bias)
        self.code_mean.zero_()
        self.code_covariance.copy_(torch.eye(width))

    def _root(self) -> Tensor:
        floor = 1e-4 * torch.eye(len(self.code_mean)).to(self.code_mean)
        # Unchecked, so that a device need not report back in every step; the training loop refuses what is not finite.
        root: Tensor = torch.linalg.cholesky_ex(self.code_covariance + floor).L
        return root


class ResidualDiscriminator(nn.Module):
    """Residual network that tells real images from generated ones.

    Args:
        size: Side of the images in pixels, a power of 2.
        channels: Image channels.
        widths: Feature channels from `size / 2` down to 4 pixels.
        minibatch_std: Append the standard deviation over the batch as a feature, which discourages
            generators of little variety. An image's logit then depends on its batch, so a model that is
            searched with its discriminator should go without.

    Shapes:
        x: (N, channels, size, size), in [0, 1].
        logits: (N,); positive means real.

    Raises:
        RangeError: The widths do not fit the size, or size is not a power of 2.
        ShapeError: x has another shape.
    """

    def __init__(
        self,
        size: int = 64,
        channels: int = 3,
        widths: Sequence[int] = (32, 64, 128, 160),
        minibatch_std: bool = False,
    ) -> None:
        super().__init__()
        self.trunk = Trunk("ResidualDiscriminator", size, channels, widths)
        self.minibatch_std = minibatch_std
        self.last = nn.Conv2d(widths[-1] + minibatch_std, 64, 3, padding=1)
        self.hidden = nn.Linear(64 * 16, 128)
        self.out = nn.Linear(128, 1)
        for layer in (self.last, self.hidden):
            nn.init.kaiming_normal_(layer.weight, _SLOPE)
            nn.init.zeros_(layer.bias)  # type: ignore[arg-type]
        nn.init.normal_(self.out.weight, std=1 / math.sqrt(128))
        nn.init.zeros_(self.out.bias)

    @overload
    def forward(self, x: Tensor, features: Literal[False] = False) -> Tensor: ...

    @overload
    def forward(self, x: Tensor, features: Literal[True]) -> tuple[Tensor, list[Tensor]]: ...

    def forward(self, x: Tensor, features: bool = False) -> Tensor | tuple[Tensor, list[Tensor]]:
        """Return the logits (N,), and on request the feature maps of every scale."""
        maps = self.trunk(x)
        top = F.leaky_relu(maps[-1], _SLOPE)
        if self.minibatch_std:
            spread = (top.var(dim=0, unbiased=False) + 1e-8).sqrt().mean()
            top = torch.cat((top, spread.to(top.dtype).expand(top.shape[0], 1, 4, 4)), dim=1)
        top = F.leaky_relu(self.last(top), _SLOPE).flatten(1)
        logits = self.out(F.leaky_relu(self.hidden(top), _SLOPE)).to(self.out.weight.dtype)[:, 0]
        return (logits, maps) if features else logits
