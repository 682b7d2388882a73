"""Wasserstein GANs that draw a given class: the critic that also classifies, its losses, a generator, replay.

Images are scaled to [-1, 1]. The critic is the network D of Ostapenko et al. (2019), the generator that of
MeRGAN (Wu et al. 2018).
"""

import contextlib
from itertools import pairwise

import torch
from torch import nn
from torch.nn import functional as F

from clkit.blocks.nets import ResNet18
from clkit.errors import ClkitError

EPS, MOMENTUM = 1e-5, 0.1                               # of batch normalisation


class GanError(ClkitError):
    """Images, classes or a training that these networks cannot work with; the message says why."""


def check_side(shape):
    """GanError unless images are square, of a side that can be halved three times, and 16 or more."""
    side = shape[1]
    if shape[1] != shape[2] or side % 8 or side < 16:
        raise GanError(f"the networks of this GAN take square images of 16, 24, 32, ... pixels, not "
                       f"{side}x{shape[2]}: bring them to such a size with side=")


# ---- the critic


class TwoHeads(nn.Module):
    """Images (B, C, S, S) in [-1, 1] -> (critic's value (B,), logits (B, K)), by two heads on `features`.

    A subclass builds its trunk, and says how it draws it anew.
    """

    def __init__(self, size):
        super().__init__()
        self.value, self.classes = nn.Linear(size, 1), nn.Linear(size, 1)
        self.classes.weight.data = self.classes.weight.data[:0]                 # no class yet
        self.classes.bias.data = self.classes.bias.data[:0]

    def features(self, x):
        """x (B, C, S, S) -> (B, D)."""
        raise NotImplementedError

    def draw_anew(self):
        """Give the weights of the trunk new values; running statistics stay, as in the released code."""
        raise NotImplementedError

    def forward(self, x):
        features = self.features(x)
        return self.value(features)[:, 0], self.classes(features)

    def gradient_of_value(self, x):
        """The gradient of the critic's values with respect to the images, (B, C, S, S), with its graph.

        x: (B, C, S, S). Batch normalisation uses the statistics of the batch, as in `still`.
        """
        x = x.detach().requires_grad_()
        with self.still():
            gradient, = torch.autograd.grad(self(x)[0].sum(), x, create_graph=True)
        return gradient

    @torch.no_grad()
    def grow(self, seen, anew):
        """Give the head of the classes `seen` rows; old ones keep their values. anew: draw all of D anew."""
        head = nn.Linear(self.classes.in_features, seen, device=self.value.weight.device)
        if not anew:
            known = len(self.classes.bias)
            head.weight[:known], head.bias[:known] = self.classes.weight, self.classes.bias
        for name in ("weight", "bias"):
            parameter = getattr(self.classes, name)
            parameter.data, parameter.grad = getattr(head, name).data, None
        self.value.reset_parameters()
        if anew:
            self.draw_anew()

    @contextlib.contextmanager
    def still(self):
        """A context in which batch normalisation uses the statistics of the batch and does not gather them.

        The running statistics are then those of the images that the classifier sees.
        """
        gather = [m for m in self.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm)]
        for norm in gather:
            norm.track_running_stats = False
        try:
            yield
        finally:
            for norm in gather:
                norm.track_running_stats = True


class Critic(TwoHeads):
    """Network D of the images of digits and house numbers: section 4.2.

    Three convolutions without bias, of kernel 5 and stride 2, with `width`, 2 and 4 times as many maps, leaky
    ReLU, batch normalisation in the last two.
    """

    def __init__(self, shape, width, norm=True):
        maps = (shape[0], width, 2 * width, 4 * width)
        super().__init__(maps[-1] * (shape[1] // 8) ** 2)
        self.convs = nn.ModuleList(nn.Conv2d(a, b, 5, 2, 2, bias=False) for a, b in pairwise(maps))
        self.norms = nn.ModuleList(nn.BatchNorm2d(n) if norm else nn.Identity() for n in maps[2:])
        self.to(memory_format=torch.channels_last)      # the faster layout for its convolutions

    def features(self, x):
        x = F.leaky_relu(self.convs[0](x), 0.2)                                 # (B, width, S/2, S/2)
        for conv, norm in zip(self.convs[1:], self.norms):
            x = F.leaky_relu(norm(conv(x)), 0.2)
        return x.flatten(1)                                                     # (B, 4 width (S/8)^2)

    def gradient_of_value(self, x):
        """As in TwoHeads, written out from the value back to the images, so that one backward pass does.

        Without batch normalisation only the slopes of the ReLU depend on x: then the way up needs no graph.
        """
        layers = []                                                             # (conv, back, slope)
        normed = isinstance(self.norms[0], nn.BatchNorm2d)
        with torch.set_grad_enabled(normed and torch.is_grad_enabled()):
            for conv, norm in zip(self.convs, (None, *self.norms)):
                x, back = normalised(conv(x), norm if normed else None)
                layers.append((conv, back, F.threshold(x.detach().sign(), 0, 0.2)))     # 1, or 0.2
                x = F.leaky_relu(x, 0.2)
        g = self.value.weight.view(1, *x.shape[1:]).expand_as(x)
        for conv, back, slope in reversed(layers):
            g = F.conv_transpose2d(back(slope * g), conv.weight, stride=2, padding=2, output_padding=1)
        return g                                                                # (B, C, S, S)

    def draw_anew(self):
        for conv in self.convs:
            conv.weight.normal_(0, 0.02)
        for norm in self.norms:
            if isinstance(norm, nn.BatchNorm2d):
                norm.weight.fill_(1)
                norm.bias.zero_()


def normalised(x, norm):
    """x (B, C, H, W) by the statistics of the batch, and the function that takes a gradient there back to x.

    norm: a BatchNorm2d, or None for x itself.
    """
    if norm is None:
        return x, lambda g: g
    places = (0, 2, 3)
    variance, mean = torch.var_mean(x, places, correction=0, keepdim=True)
    inverse = (variance + norm.eps).rsqrt()                                     # (1, C, 1, 1)
    unit, gamma = (x - mean) * inverse, norm.weight[:, None, None]

    def back(g):
        parts = g - g.mean(places, keepdim=True) - unit * (g * unit).mean(places, keepdim=True)
        return gamma * inverse * parts

    return gamma * unit + norm.bias[:, None, None], back


class ResidualCritic(TwoHeads):
    """Network D of ImageNet-50: section 4.2. ResNet18, then a wide layer with batch normalisation and ReLU.

    width: maps of the first stage, 64 in the paper; the wide layer has 32 times as many outputs, 2,048.
    """

    def __init__(self, shape, width):
        super().__init__(32 * width)
        self.trunk = ResNet18(shape, 1, width)
        self.trunk.head = nn.Identity()
        self.wide = nn.Linear(8 * width, 32 * width)
        self.norm = nn.BatchNorm1d(32 * width, momentum=0.01)

    def features(self, x):
        return F.relu(self.norm(self.wide(self.trunk.features(x))))             # (B, 32 width)

    def draw_anew(self):
        for module in (*self.trunk.modules(), self.wide, self.norm):
            if isinstance(module, nn.modules.batchnorm._BatchNorm):
                nn.init.ones_(module.weight)
                nn.init.zeros_(module.bias)
            elif isinstance(module, nn.Conv2d | nn.Linear):
                module.reset_parameters()


def critic_losses(critic, real, fake):
    """(value, penalty), scalars: E D(fake) - E D(real), and the mean of (|gradient of D| - 1)^2 between them.

    real, fake: (B, C, S, S). The penalty is that of Gulrajani et al. (2017).
    """
    share = torch.rand(len(real), 1, 1, 1, device=real.device)
    with critic.still():
        value = critic(fake)[0].mean() - critic(real)[0].mean()
    gradient = critic.gradient_of_value(share * real + (1 - share) * fake)      # (B, C, S, S)
    return value, (gradient.flatten(1).norm(dim=1) - 1).square().mean()


def criticise(critic, optimizer, real, fake, penalty):
    """A step of the critic, on images (B, C, S, S) and a weight; (value, penalty) before it, detached."""
    value, gradient = critic_losses(critic, real, fake)
    step(optimizer, value + penalty * gradient)
    return value.detach(), gradient.detach()


# ---- a generator of fixed size


class ConditionalNorm(nn.Module):
    """Batch normalisation with a scale and a shift of each class (Dumoulin et al. 2017).

    x (B, D, H, W), labels (B,) -> (B, D, H, W). In training the statistics are those of the whole batch, and
    the running ones of each class in it follow them. So a class keeps those that it was last trained with.
    """

    def __init__(self, width, classes):
        super().__init__()
        self.scale = nn.Parameter(torch.ones(classes, width, device="cpu"))
        self.shift = nn.Parameter(torch.zeros(classes, width, device="cpu"))
        self.register_buffer("mean", torch.zeros(classes, width, device="cpu"))
        self.register_buffer("var", torch.ones(classes, width, device="cpu"))

    def forward(self, x, labels):
        if self.training:
            mean, var = x.new_zeros(x.shape[1]), x.new_zeros(x.shape[1])
            x = F.batch_norm(x, mean, var, training=True, momentum=1.0, eps=EPS)
            self.follow(mean, var, labels)
        else:
            mean, var = (F.embedding(labels, t)[:, :, None, None] for t in (self.mean, self.var))
            x = (x - mean) * (var + EPS).rsqrt()
        scale, shift = (F.embedding(labels, t)[:, :, None, None] for t in (self.scale, self.shift))
        return x * scale + shift

    @torch.no_grad()
    def follow(self, mean, var, labels):
        """Move the running statistics of these classes (B,) towards mean and var (D,)."""
        share = mean.new_zeros(len(self.mean), 1).index_fill_(0, labels, MOMENTUM)          # (K, 1)
        self.mean.lerp_(mean, share)
        self.var.lerp_(var, share)


class ConditionalGenerator(nn.Module):
    """z (B, nz), labels (B,) -> images (B, C, S, S) in [-1, 1]: the generator of MeRGAN, of a fixed size.

    A linear layer gives 4 width maps of side S/8; two transposed convolutions of kernel 5 and stride 2 give 2
    width and width maps, each of the three with class-conditional batch normalisation and ReLU; a third
    one gives the image. z is noise alone: the class enters by the normalisation, as in the authors' code, and
    so a class has parameters of its own. classes=1 makes the generator unconditional.
    """

    def __init__(self, shape, nz, classes, width):
        check_side(shape)
        super().__init__()
        self.nz, self.side, maps = nz, shape[1] // 8, (4 * width, 2 * width, width)
        self.first = nn.Linear(nz, maps[0] * self.side**2, bias=False)
        self.convs = nn.ModuleList(nn.ConvTranspose2d(a, b, 5, 2, 2, 1, bias=False)
                                   for a, b in pairwise(maps))
        self.norms = nn.ModuleList(ConditionalNorm(n, classes) for n in maps)
        self.image = nn.ConvTranspose2d(width, shape[0], 5, 2, 2, 1)
        for weight in (*self.weights, self.image.weight):
            nn.init.xavier_uniform_(weight, 2**0.5)

    @property
    def weights(self):
        """The weights of the hidden layers, which a size in the papers counts."""
        return [self.first.weight, *(conv.weight for conv in self.convs)]

    def noise(self, n):
        """n times z: (n, nz)."""
        return torch.randn(n, self.nz, device=self.first.weight.device)

    def forward(self, z, labels):
        x = self.first(z).unflatten(1, (-1, self.side, self.side))              # (B, 4 width, S/8, S/8)
        x = F.relu(self.norms[0](x, labels))
        for conv, norm in zip(self.convs, self.norms[1:]):
            x = F.relu(norm(conv(x), labels))
        return torch.tanh(self.image(x))

    @torch.no_grad()
    def draw(self, labels):
        """Images of these classes (N,), from new noise, in eval mode: (N, C, S, S) in [-1, 1]."""
        mode = self.training
        self.eval()
        parts = [self(self.noise(len(part)), part) for part in labels.split(1000)]
        self.train(mode)
        return torch.cat(parts)


def generator_loss(critic, fake, labels, auxiliary):
    """-E D(fake), and `auxiliary` times the cross-entropy of its classes: fake (B, C, S, S), labels (B,)."""
    with critic.still():
        value, logits = critic(fake)
    return auxiliary * F.cross_entropy(logits, labels) - value.mean() if auxiliary else -value.mean()


def own_gradients(optimizer, loss):
    """Give the parameters of an optimizer the gradients of a loss, and no others.

    They are contiguous, because fused Adam pairs memory, not indices.
    """
    own = optimizer.param_groups[0]["params"]
    for parameter, gradient in zip(own, torch.autograd.grad(loss, own, materialize_grads=True)):
        parameter.grad = gradient.contiguous()


def adam(parameters, lr):
    """Adam with the betas that are usual in these papers."""
    return torch.optim.Adam(parameters, lr=lr, betas=(0.5, 0.999), fused=True)


def finite(terms, task, epoch):
    """terms, {name: scalar} of an epoch; GanError where one of them is not finite."""
    good = torch.stack([*terms.values()]).isfinite().tolist()
    if not all(good):
        bad = ", ".join(name for name, well in zip(terms, good) if not well)
        raise GanError(f"training diverged in epoch {epoch + 1} of task {task.index + 1} ({bad} not finite): "
                       f"use a smaller lr")
    return terms


def old_images(generator, ends, each):
    """`each` new images of every class, by task: [(images (N, C, S, S) in [-1, 1], labels (N,))].

    ends (T,): the classes seen after each task.
    """
    labels = [torch.arange(first, seen, device=ends.device).repeat_interleave(each)
              for first, seen in pairwise((0, *ends.tolist()))]
    return [(generator.draw(y), y) for y in labels]


def labels_to_recall(n, label, ends):
    """Classes (n,) of images to recall: all seen in turn, or one; ends (T,): classes seen after each task.

    GanError before the first task, and for a class to come.
    """
    if not len(ends):
        raise GanError("no class has been learned yet: recall images after the first task")
    seen = int(ends[-1])
    if label is not None and not 0 <= label < seen:
        raise GanError(f"class {label} has not been learned yet: recall one of the classes 0 to {seen - 1}")
    labels = torch.arange(n, device=ends.device) % seen
    return labels if label is None else torch.full_like(labels, label)


# ---- the classifier, on new images and replayed ones


class Replay:
    """Fixed sets of old images, of which each batch takes as many per set as it has new images.

    sets: [(images (N, C, S, S) in [-1, 1], labels (N,))], one for each old task or class; it may be empty.
    """

    def __init__(self, sets):
        self.sets = sets
        self.orders = None

    def shuffle(self):
        """Draw a new order for each set, for the next epoch."""
        self.orders = [torch.randperm(len(labels), device=labels.device) for _, labels in self.sets]

    def some(self, start, size):
        """`size` old images, as many from each set up to rounding, from `start` on in each of them."""
        counts = [size // len(self.sets) + (k < size % len(self.sets)) for k in range(len(self.sets))]
        return [torch.cat(part) for part in zip(*self._window(start, counts))]

    def pool(self, x, y, start):
        """New images x (B, C, S, S), y (B,), and B images from `start` on in each set, in random order."""
        parts = [(x, y), *self._window(start, [len(y)] * len(self.sets))]
        mixed = torch.randperm(sum(len(labels) for _, labels in parts), device=y.device)
        return [torch.cat(part)[mixed] for part in zip(*parts)]

    def _window(self, start, counts):
        """Of each set the images and labels from `start` on in its order."""
        for (images, labels), order, n in zip(self.sets, self.orders, counts):
            index = order[torch.arange(start, start + n, device=order.device) % len(order)]
            yield images[index], labels[index]


def signed(images):
    """uint8 images as float32 in [-1, 1]."""
    return 2 * (images.float() / 255) - 1


def labelled_noise(labels, classes, size):
    """Noise for images of these classes (B,): (B, size), the one-hot class, then entries from N(0, 1)."""
    z = torch.randn(len(labels), size, device=labels.device)
    z[:, :classes] = F.one_hot(labels, classes)
    return z


def classify(critic, optimizer, x, y, size):
    """Steps of the critic on the cross-entropy of x, y in chunks of `size`; their mean loss, detached."""
    losses = []
    for part_x, part_y in zip(x.split(size), y.split(size)):
        losses.append(F.cross_entropy(critic(part_x)[1], part_y))
        step(optimizer, losses[-1])
    return torch.stack(losses).detach().mean()


def step(optimizer, loss):
    """One step of an optimizer down the gradient of a loss."""
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
