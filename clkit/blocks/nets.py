"""Networks that several methods share, built from the image shape (C, H, W) and the number of classes (K)."""

import math
from itertools import accumulate, pairwise

import torch
from torch import nn
from torch.nn import functional as F

from clkit.errors import ClkitError, did_you_mean


class _Net(nn.Module):
    """A network with features(x), (B, D), and a linear layer `head`.

    rectified: whether features pass a last ReLU; without it they have both signs, as cosines need.
    """

    rectified = True

    def forward(self, x):
        return self.head(self.features(x))                                      # (B, K)


class MLP(_Net):
    """Fully connected ReLU network on flattened images: (B, C, H, W) -> (B, K).

    With hidden=(400, 400) on 28x28 images and 10 classes it has 478,410 parameters, the usual size for
    split MNIST.
    """

    def __init__(self, shape, classes, hidden=(400, 400)):
        super().__init__()
        sizes = (math.prod(shape), *hidden)
        self.hidden = nn.ModuleList(nn.Linear(a, b) for a, b in pairwise(sizes))
        self.head = nn.Linear(sizes[-1], classes)

    def features(self, x):
        x = x.flatten(1)                                                        # (B, C*H*W)
        for layer in self.hidden:
            x = layer(x)                                                        # (B, hidden)
            if self.rectified or layer is not self.hidden[-1]:
                x = F.relu(x)
        return x


class _Block(nn.Module):
    """Two 3x3 convolutions, each with batch normalisation, and a shortcut (He et al. 2016, figure 2)."""

    rectified = True

    def __init__(self, inputs, outputs, stride):
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(outputs)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(outputs)
        self.shortcut = nn.Sequential()
        if stride != 1 or inputs != outputs:
            self.shortcut = nn.Sequential(nn.Conv2d(inputs, outputs, 1, stride, bias=False),
                                          nn.BatchNorm2d(outputs))

    def forward(self, x):
        y = F.relu(self.bn1(self.conv1(x)))                                     # (B, outputs, H/stride, ...)
        y = self.bn2(self.conv2(y)) + self.shortcut(x)
        return F.relu(y) if self.rectified else y


class ResNet(_Net):
    """Residual network of basic blocks: (B, C, H, W) -> (B, K).

    widths: channels of each stage; all stages but the first halve the side.   depth: blocks of a stage, or of
    each.
    stem: "small", a 3x3 convolution, or "large", a 7x7 convolution and max-pooling that divide the side by 4,
    for images of 224 pixels.
    pool: side of the adjacent squares of positions that are averaged before the head; positions left over at
    the edge are dropped, and a map smaller than a square is one square. None averages over all positions.

    `until` and `after` divide the network: net(x) is net.after(net.until(x, stage), stage) for each stage
    from 1 to `stages`. The last stage ends after the averaging, with features.
    """

    def __init__(self, shape, classes, widths, depth=2, pool=None, stem="small"):
        super().__init__()
        depths = (depth,) * len(widths) if isinstance(depth, int) else depth
        self.pool, self.ends, self.large = pool, tuple(accumulate(depths)), stem == "large"
        self.stem = nn.Conv2d(shape[0], widths[0], *((7, 2, 3) if self.large else (3, 1, 1)), bias=False)
        self.bn = nn.BatchNorm2d(widths[0])
        before = [widths[0], *widths[:-1]]
        blocks = [_Block(b if k else a, b, 1 if k or not s else 2)
                  for s, (a, b) in enumerate(zip(before, widths)) for k in range(depths[s])]
        self.blocks = nn.Sequential(*blocks)
        squares = [1 if pool is None else max(1, -(-side // 8) // pool) for side in shape[1:]]
        self.head = nn.Linear(widths[-1] * math.prod(squares), classes)

    @property
    def rectified(self):
        """As in other networks."""
        return self.blocks[-1].rectified

    @rectified.setter
    def rectified(self, value):
        self.blocks[-1].rectified = value

    @property
    def stages(self):
        """The number of stages."""
        return len(self.ends)

    def maps(self, x, stage):
        """The maps of a stage, from 1: (B, width, h, w); those of the last one are not averaged yet."""
        x = F.relu(self.bn(self.stem(x)))
        if self.large:
            x = F.max_pool2d(x, 3, 2, 1)
        return self.blocks[:self.ends[stage - 1]](x)

    def until(self, x, stage):
        """What a stage gives, from 1: maps (B, width, h, w), or after the last one features (B, D)."""
        x = self.maps(x, stage)
        return self.averaged(x) if stage == self.stages else x

    def after(self, u, stage):
        """Logits (B, K) from what a stage gives."""
        if stage < self.stages:
            u = self.averaged(self.blocks[self.ends[stage - 1]:](u))
        return self.head(u)

    def layers_until(self, stage):
        """The modules that `until` uses: a list."""
        return [self.stem, self.bn, *self.blocks[:self.ends[stage - 1]]]

    def features(self, x):
        return self.until(x, self.stages)                                       # (B, D)

    def averaged(self, x):
        """Features (B, D) of the maps of the last stage."""
        if self.pool is None:
            return F.adaptive_avg_pool2d(x, 1).flatten(1)                       # (B, width)
        return F.avg_pool2d(x, [min(self.pool, side) for side in x.shape[2:]]).flatten(1)


class ResNet18(ResNet):
    """Residual network of 18 layers for small images, 3x3 stem, no max-pooling: (B, C, H, W) -> (B, K).

    width: channels of the first of four stages, doubled in each later one. 64 is the usual size for 32x32
    images; 20 is the reduced network of Lopez-Paz and Ranzato (2017), with 1,094,750 parameters for 10
    classes of RGB images.
    """

    def __init__(self, shape, classes, width=20, pool=None, stem="small"):
        super().__init__(shape, classes, (width, 2 * width, 4 * width, 8 * width), 2, pool, stem)


def _start(layers):
    """Start values of He et al. 2015: without normalisation, training may never start from torch's own."""
    for layer in layers:
        nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")
        nn.init.zeros_(layer.bias)


class ConvNet(_Net):
    """Four 3x3 convolutions in two stages with max-pooling: (B, C, H, W) -> (B, K).

    Fast enough for a live lesson on a CPU. Without normalisation layers, only the weights carry the past.
    """

    def __init__(self, shape, classes, widths=(32, 32, 64, 64)):
        super().__init__()
        channels = (shape[0], *widths)
        self.convs = nn.ModuleList(nn.Conv2d(a, b, 3, padding=1) for a, b in pairwise(channels))
        _start(self.convs)
        with torch.no_grad():
            size = self.features(torch.zeros(1, *shape, device="cpu")).shape[1]
        self.head = nn.Linear(size, classes)

    def features(self, x):
        for i, conv in enumerate(self.convs):
            x = conv(x)                                                         # (B, width, H, W)
            if self.rectified or conv is not self.convs[-1]:
                x = F.relu(x)
            if i % 2:
                x = F.max_pool2d(x, 2)                                          # (B, width, H/2, W/2)
        return x.flatten(1)


class ZenkeNet(_Net):
    """Four 3x3 convolutions and a dense layer: (B, C, H, W) -> (B, K), for CIFAR-10/100 (Zenke et al. 2017).

    In each of two stages the first convolution pads its input and the second does not, and max-pooling
    halves the result: 32x32 images become 64 maps of 6x6, or 2,304 numbers. With 60 classes the network has
    1,276,508 parameters. The paper's dropout is left out. A side of one pixel is not pooled further, so that
    images of 8x8 pixels are large enough.
    """

    def __init__(self, shape, classes, widths=(32, 32, 64, 64), dense=512):
        super().__init__()
        if min(shape[1:]) < 8:
            raise ClkitError(f"images of {shape[1]}x{shape[2]} pixels are too small for this network, which "
                             "needs 8x8 or more: use the network mlp or convnet")
        channels = (shape[0], *widths)
        self.convs = nn.ModuleList(nn.Conv2d(a, b, 3, padding=1 - i % 2)
                                   for i, (a, b) in enumerate(pairwise(channels)))
        with torch.no_grad():
            size = self.maps(torch.zeros(1, *shape, device="cpu")).shape[1]
        self.dense = nn.Linear(size, dense)
        _start([*self.convs, self.dense])
        self.head = nn.Linear(dense, classes)

    def maps(self, x):
        """The maps of the last convolution, pooled: x (B, C, H, W) -> (B, width * h * w), map after map."""
        for i, conv in enumerate(self.convs):
            x = F.relu(conv(x))                                                 # (B, width, H or H-2, ...)
            if i % 2:
                x = F.max_pool2d(x, [min(2, side) for side in x.shape[2:]])
        return x.flatten(1)

    def features(self, x):
        x = self.dense(self.maps(x))                                            # (B, dense)
        return F.relu(x) if self.rectified else x


def _sized(net, **sizes):
    """A network in other sizes; a function of this file, so that it is not taken for the user's own code."""
    def build(shape, classes):
        return net(shape, classes, **sizes)

    build.net = net
    return build


NETS = {
    "mlp": MLP,
    "convnet": ConvNet,
    "resnet18": ResNet18,
    # For 84x84 images (Ji et al. 2020). As in the authors' code, their 11x11 maps give 2x2 squares, without
    # the last three rows and columns: 1,157,240 parameters for 100 classes. The 4x4 maps of 32x32 images are
    # one square.
    "resnet18-pool2": _sized(ResNet18, pool=4),
    "resnet18-wide": _sized(ResNet18, width=64),        # 11,220,132 parameters for 100 classes
    "resnet18-large": _sized(ResNet18, width=64, stem="large"),         # 11,689,512 for 1,000 classes
    "resnet34": _sized(ResNet, widths=(64, 128, 256, 512), depth=(3, 4, 6, 3)),     # 21,287,252 for 20
    "resnet32": _sized(ResNet, widths=(16, 32, 64), depth=5),           # He et al. 2016, section 4.2
    "resnet10": _sized(ResNet, widths=(12, 24, 48, 96), depth=1),       # for 16x16 images on a CPU
    "resnet8": _sized(ResNet, widths=(16, 32, 64), depth=1),
    "resnet8-wide": _sized(ResNet, widths=(32, 64, 128), depth=1),
    "zenke": ZenkeNet,
    "zenke-wide": _sized(ZenkeNet, widths=(64, 64, 128, 128)),           # twice as many maps
}
STAGED = tuple(name for name, net in NETS.items() if issubclass(getattr(net, "net", net), ResNet))


def build(name, shape, classes, rectified=True):
    """The network called `name` in its usual size, a module with features() and head; shape is (C, H, W).

    rectified: whether its features pass a last ReLU.
    ClkitError for an unknown name, or if the images are too small for the network.
    """
    if name not in NETS:
        raise ClkitError(f"there is no network '{name}': use one of {', '.join(NETS)}"
                         f"{did_you_mean(name, NETS)}")
    net = NETS[name](shape, classes)
    net.rectified = rectified
    return net


# ---- start values from a file

_TORCHVISION = {"stem": "conv1", "bn": "bn1", "shortcut": "downsample", "head": "fc"}


def load(net, path):
    """Give a network the weights in a file, all but those of the head; nothing is downloaded.

    path: of a state_dict written by torch.save, with the names of this file or, for residual networks, those
    of torchvision. Only tensors are read from it. ClkitError if that is impossible, or if names or shapes do
    not agree.
    """
    cure = "name a file with the weights of the same network, or leave out weights="
    try:
        found = torch.load(path, map_location="cpu", weights_only=True)
        found = {name: value for name, value in found.items() if isinstance(value, torch.Tensor)}
    except Exception as error:                          # of reading, of unpickling, of the structure
        said = str(error).partition("\n")[0]
        raise ClkitError(f"the weights in {path} cannot be read ({said}): {cure}") from error
    wanted = {name: value for name, value in net.state_dict().items() if not name.startswith("head.")}
    ours = "stem.weight" in found or not isinstance(net, ResNet)
    names = dict(zip(wanted, wanted if ours else _torchvision_names(net, wanted)))
    for name, theirs in names.items():
        if theirs not in found:
            raise ClkitError(f"the weights in {path} have no {theirs}: {cure}")
        if found[theirs].shape != wanted[name].shape:
            raise ClkitError(f"{theirs} has the shape {tuple(found[theirs].shape)} in {path}, but "
                             f"{tuple(wanted[name].shape)} in the network: {cure}")
    with torch.no_grad():
        for name, theirs in names.items():
            wanted[name].copy_(found[theirs])


def _torchvision_names(net, names):
    """The names that tensors of a ResNet have in torchvision: its blocks are counted stage by stage."""
    starts, found = (0, *net.ends), []
    for name in names:
        part, *rest = name.split(".")
        if part == "blocks":
            stage = next(s for s, end in enumerate(net.ends, 1) if int(rest[0]) < end)
            part, rest = f"layer{stage}", [str(int(rest[0]) - starts[stage - 1]), *rest[1:]]
        found.append(".".join(_TORCHVISION.get(word, word) for word in (part, *rest)))
    return found
