"""GFR: generative replay of features, and feature distillation (Liu et al. 2020).

    python -m clkit run gfr/split-shapes --preset teach
    python -m clkit run gfr-gaussian/split-shapes --preset teach     # Gaussian class prototypes instead of G

See also: features.py (G, D, their losses, Gaussian prototypes), importance.py (EWC, MAS), blocks/nets.py (the
image network, which is F up to a stage and H after it), analysis/features.py, papers/gfr.py.

    GFR(tasks): for each task t = 0, 1, ... with images D_t:
        F* <- F                                     the network before the task             frozen
        for each epoch, for each batch (x, y) of D_t:                       section 4.3     GFR.fit
            u <- F(x);  c uniform over the old classes;  v <- G(z, c)                       GFR.replay
            F, H: step on  (CE(H(u), y) + r CE(H(v), c)) / (r + 1)                          balanced
                           + lambda r |F(x) - F*(x)|                        equation 4      distance
        from here on F and H rest; no G is needed after the last task
        G* <- G
        for each epoch, for each batch i of u = F(x), y:                    section 4.1     GFR.fit_generator
            D: step on  E D(G(z, y), y) - E D(u, y)                         equation 1      critic_losses
                           + lambda_GP (|grad D| - 1)^2
            each 5th batch, G: step on  -E D(G(z, y), y)                    equation 2      GFR.generate
                           + lambda_RA r |G(z, c) - G*(z, c)|^2, c old      equation 3      alignment

    r = old classes / new classes.   In the first task nothing is old: plain cross-entropy, no alignment.

Details the paper leaves open, or that the authors' code does differently
1. The code weighs three terms by r: the cross-entropy of replayed features, so that each class counts the
   same; distillation; and alignment. Equations 3 and 4 have no weights. The code computes r as an integer for
   half of the classes and equal tasks, where it is this ratio; here it is the ratio for all tasks.
2. Distillation in the code is the norm of the difference over the whole batch (fd="frob"), sqrt(B) times as
   large as the mean over images of equation 4 (fd="mean_l2", fd_times_r=False). Another batch size changes
   it by sqrt(B), and alignment, a sum, by B: the strengths are those of batches of 128.
3. Batch normalisation keeps the running statistics of the first task (norm="frozen"), by one line of the
   code; gamma and beta are trained on. So the features of the first step are those of F*. norm="batch"
   uses statistics of batches in all tasks.
4. The head has a row for each class of the stream from the start, as in the code, and cross-entropy counts
   all of them (head="full"). With head="expand", as in the text, rows are added as classes arrive. Scores
   are compared among the classes seen, in the code among all rows.
5. Learning rates fall to a tenth (G, D: 0.3) every lr_step epochs, but one epoch early: the code advances its
   schedule before each epoch. Of 201 epochs only the last two have the low rate. Weight decay is the L2
   penalty of Adam. The paper has neither.
6. "GAN" is a Wasserstein GAN with gradient penalty and a projection critic, without a classification term.
   The final ReLU of G is in the code only; real features are not negative.
7. D sees features of new classes only. What the paper calls replayed features in this phase is the alignment.
   The alignment step uses the noise of the batch, with other classes. i starts at 0 in each epoch, so that
   its first batch always trains G; all optimizers are new in each phase.
8. Images of the generator's phase are augmented anew in each epoch. F rests, so features of many images are
   computed at once, and the distribution is that of computing them in each step.
9. Gaussian prototypes: the text has a mean and a covariance by class; the code draws one number of noise
   for all dimensions of a sample (gauss="scalar"). "diag" draws one for each, "full" has a covariance. They
   are measured on one view of each image, never updated, and draws are not cut off at 0.
10. Without replay the loss is CE(H(u), y) + lambda r |F(x) - F*(x)|.
11. EWC and MAS (table 3) replace distillation by lambda/2 sum_i A_i (theta_i - theta*_i)^2 over the weights
   of F. Neither lambda nor A is given. A is the mean over images of (d log p / d theta)^2 for the class
   that the network finds likely, or of |d |logits| / d theta|; after a task it is averaged with the last.
12. stage < 4 (table 2) was not released. F ends after that stage, distillation is on its maps, and G and D
   are convolutional. EWC and MAS hold the layers of F.

Records: tables "loss", "drift" and "features" (see `tables`).
Keeps between tasks: F, H; G and D, or the mean and spread of each class; with EWC and MAS the importance of
the weights of F. F* and G* exist during a task only.
"""

from dataclasses import dataclass
from typing import Literal, NamedTuple

import torch
from torch import nn
from torch.nn import functional as F

from clkit.blocks import nets, recipe
from clkit.blocks.gan import adam, finite, own_gradients, step
from clkit.blocks.memory import as_pixels
from clkit.blocks.pixels import Standardise, crop_and_flip, zoom_and_flip
from clkit.blocks.quadratic import QuadraticPenalty
from clkit.engine.evaluate import in_eval_mode
from clkit.engine.learner import Learner, LearnerError, check_config, frozen
from clkit.engine.parallel import spread
from clkit.methods.gfr.features import (
    ClassGaussians,
    Critic,
    Generator,
    MapCritic,
    MapGenerator,
    alignment,
    critic_losses,
)
from clkit.methods.gfr.importance import importance

REVISION = 1
PUSHED = {"cpu": 256}                                   # images whose features are computed at once,
ELSEWHERE = 4096                                        # by device: a CPU is slower with more
WATCHED = 200                                           # images whose features are compared over a task
LATER = ("regulariser strength fd fd_times_r replay gauss norm nz hidden gan_epochs gan_lr gan_lr_step "
         "critic_steps penalty alignment")              # settings without effect on F and H of the first task


@dataclass(frozen=True)
class Config:
    """Defaults: CIFAR-100, as released."""

    net: str = "resnet18-wide"  # the image network, one with stages (clkit.blocks.nets)
    stage: int = 4              # F ends after this stage; the last one ends with the averaged features
    head: Literal["full", "expand"] = "full"            # rows of the head from the start (detail 4)
    regulariser: Literal["distill", "ewc", "mas", "none"] = "distill"   # what holds F (detail 11)
    strength: float = 1.0       # lambda: weight of the regulariser
    fd: Literal["frob", "mean_l2"] = "frob"             # distance of features (detail 2)
    fd_times_r: bool = True     # distillation is multiplied by r (detail 2)
    replay: bool = True         # H learns features of old classes
    gauss: Literal["none", "scalar", "diag", "full"] = "none"   # Gaussian prototypes instead of G (detail 9)
    norm: Literal["frozen", "batch"] = "frozen"         # batch normalisation after the first task (detail 3)
    mean: tuple[float, ...] = (0.4914, 0.4822, 0.4465)              # of the pixels, by channel
    std: tuple[float, ...] = (0.2023, 0.1994, 0.201)                # their standard deviation, by channel
    augment: Literal["shift", "flip", "zoom", "none"] = "shift"     # training images: crops from a margin of
                                # 4 pixels, mirrored ones, parts resized to `view` pixels, or as they are
    view: int = 0               # side of what the network sees of an image, its centre in tests; 0: all of it
    precision: Literal["fp32", "bf16"] = "fp32"         # of the image network
    epochs: int = 201           # passes over the images of a task, for F and H
    batch_size: int = 128       # new images, and replayed features, in a step; and features for G and D
    lr: float = 1e-3            # learning rate of Adam for F and H
    lr_step: int = 200          # epochs until it falls (detail 5)
    weight_decay: float = 2e-4  # of F and H
    nz: int = 200               # entries of z
    hidden: int = 512           # units of the hidden layers of G and D
    gan_epochs: int = 501       # passes over the images of a task, for G and D
    gan_lr: float = 1e-4        # learning rate of Adam for G and D, whose betas are 0.5 and 0.999
    gan_lr_step: int = 200      # epochs until it falls
    critic_steps: int = 5       # steps of D to one of G
    penalty: float = 10.0       # lambda_GP
    alignment: float = 1e-3     # lambda_RA

    def __post_init__(self):
        check_config(self, above_0="lr gan_lr std", from_0="view")
        if self.net not in nets.STAGED:
            raise LearnerError(f"net must be a network with stages ({', '.join(nets.STAGED)}), not "
                               f"{self.net!r}")
        if self.gauss != "none" and not self.replay:
            raise LearnerError(f"gauss={self.gauss!r} is a way to replay: leave it out, or use replay=True")
        if self.augment == "zoom" and not self.view:
            raise LearnerError("augment='zoom' resizes parts of images: give their side, such as view=224")


class Past(NamedTuple):
    """What a step of F and H knows of old tasks: the number of classes, r, and F* and a penalty, or None."""

    classes: int
    times: float
    teacher: nn.Module | None
    pull: QuadraticPenalty | None


class GFR(Learner):
    """Generative feature replay."""

    parallel = True
    tables = {
        "loss": "one row per epoch of either phase: phase (classifier, generator), epoch, loss; classifier: "
                "new, old (cross-entropies), regulariser; generator: critic, penalty, generator, alignment; "
                "NaN where a column belongs to the other phase",
        "drift": "one row per epoch of the classifier, from the second task on: epoch, cosine of the "
                 "features of the task's images before the task and now",
        "features": "one row per task, from a probe: labels (M,), real (M, D), generated (M, D), means "
                    "(K, D), recognised (K,), future",
    }
    memory_kinds = {"generator": "generators", "critic": "generators", "gaussians": "features",
                    "importance": "importance"}

    def __init__(self, config, shape, classes):
        super().__init__(config, shape, classes)
        self.standardise = Standardise(config.mean, config.std, shape[0], config.view)
        self.augment = {"shift": crop_and_flip(), "flip": crop_and_flip(0),
                        "zoom": zoom_and_flip(config.view), "none": None}[config.augment]
        self.net = nets.build(config.net, shape, classes).to(memory_format=torch.channels_last)
        size, last = self.size_of_features(), config.stage == self.net.stages
        if config.head == "expand":
            head = self.net.head
            head.weight.data, head.bias.data = head.weight.data[:0], head.bias.data[:0]
        self.generator = self.critic = self.gaussians = None
        if config.replay and config.gauss == "none":
            self.generator = (Generator if last else MapGenerator)(size, classes, config.nz, config.hidden)
            self.critic = (Critic if last else MapCritic)(size, classes, config.hidden)
        elif config.replay:
            if not last:
                raise LearnerError(f"gauss={config.gauss!r} describes features, not maps: use "
                                   f"stage={self.net.stages}")
            self.gaussians = ClassGaussians(config.gauss, *size)
        weighs = config.regulariser in ("ewc", "mas")
        count = sum(p.numel() for p in self.extractor().parameters()) if weighs else 0
        self.register_buffer("importance", torch.zeros(count, device="cpu") if weighs else None)    # (P,) A
        self.register_buffer("seen", torch.zeros((), dtype=torch.int64, device="cpu"))      # classes learned
        self.register_buffer("known", torch.zeros((), dtype=torch.int64, device="cpu"))     # classes recalled

    def size_of_features(self):
        """The shape of what F gives for an image: (D,) or (C, h, w)."""
        stage, stages, view = self.config.stage, self.net.stages, self.config.view
        if stage > stages:
            raise LearnerError(f"stage={stage} does not exist: the network {self.config.net} has the stages "
                               f"1 to {stages}")
        channels, *sides = self.shape
        if view > min(sides):
            raise LearnerError(f"view={view} is larger than the images of {sides[0]}x{sides[1]} pixels")
        x = torch.zeros(1, channels, *([view] * 2 if view else sides), device="cpu")
        with torch.no_grad(), in_eval_mode(self.net):
            return tuple(self.net.until(x, stage).shape[1:])

    # -- F and H

    def until(self, net, x):
        """F of a network, on standardised images x (B, C, H, W): features (B, D), or maps."""
        with torch.autocast(x.device.type, torch.bfloat16, enabled=self.config.precision == "bf16"):
            x = x.contiguous(memory_format=torch.channels_last)
            return spread(net.until, x, self.config.stage).float()

    def after(self, u):
        """H: logits (B, K) of features or maps."""
        with torch.autocast(u.device.type, torch.bfloat16, enabled=self.config.precision == "bf16"):
            return self.net.after(u, self.config.stage).float()

    def extractor(self):
        """The layers of F, whose parameters are the first of the network's."""
        return nn.ModuleList(self.net.layers_until(self.config.stage))

    def learn(self, task, trace):
        self.grow(task.seen)
        self.fit(task, trace)
        self.seen.fill_(task.seen)
        if task.seen < self.classes:
            if self.importance is not None:
                self.weigh(task)
            self.remember(task, trace)
        trace("features")

    @torch.no_grad()
    def grow(self, seen):
        """Give the head a row for each class seen, if it has fewer; old rows keep their values."""
        head, known = self.net.head, len(self.net.head.bias)
        if known < seen:
            new = nn.Linear(head.in_features, seen, device=head.bias.device)
            new.weight[:known], new.bias[:known] = head.weight, head.bias
            for name in ("weight", "bias"):
                parameter = getattr(head, name)
                parameter.data, parameter.grad = getattr(new, name).data, None

    def fit(self, task, trace):
        """Train F and H on the images of a task, and H on features of old classes (section 4.3)."""
        config, images = self.config, task.train
        self.net.train(not (task.first and config.norm == "frozen"))
        past, drift = self.past(task), self.drift(task, trace)
        optimizer = recipe.adam(self.net.parameters(), config)
        batches = images.batches(config.batch_size, drop_last=True, augment=self.augment)
        for epoch in trace.epochs("classifier", config.epochs, optimizer, apart=LATER,
                                  share=None if task.first else self.net):
            decay(optimizer, config.lr, 0.1, config.lr_step, epoch)
            total = 0.0
            for x, y in batches:
                total += self.classify(optimizer, self.standardise(x), y, past)
            report(trace, "classifier", task, epoch, dict(zip(COLUMNS, total / len(batches))))
            if drift is not None:
                trace("drift", epoch=epoch, cosine=drift())

    def past(self, task):
        """What the steps of this task need to know of the tasks before it."""
        first, weighs = task.first, self.importance is not None
        teacher = frozen(self.net) if first and self.config.regulariser == "distill" else None
        pull = QuadraticPenalty(self.extractor(), self.importance) if first and weighs else None
        return Past(first, times(task), teacher, pull)

    def classify(self, optimizer, x, y, past):
        """A step of F and H; (loss, CE of new classes, CE of old ones, regulariser) before it, (4,)."""
        config, nothing = self.config, torch.zeros((), device=y.device)
        u = self.until(self.net, x)                                             # (B, D)
        loss = new = F.cross_entropy(self.after(u), y)
        old = held = nothing
        if past.classes and config.replay:
            c = torch.randint(past.classes, (len(y),), device=y.device)
            old = F.cross_entropy(self.after(self.replay(c)), c)
            loss = balanced(new, old, past.times)
        if past.teacher is not None:
            with torch.no_grad():
                before = self.until(past.teacher, x)
            held = config.strength * distance(u, before, config.fd) * (past.times if config.fd_times_r else 1)
        optimizer.zero_grad()
        (loss + held).backward()
        if past.pull is not None:
            held = past.pull.add_gradient(config.strength / 2)
        optimizer.step()
        return torch.stack([loss + held, new, old, held]).detach()

    def drift(self, task, trace):
        """A function that compares the features of some images of the task with those before it; or None."""
        if not task.first or not trace.wants("drift"):
            return None
        index = torch.linspace(0, len(task.train) - 1, WATCHED, device=task.train.device).long()
        x = self.standardise(as_pixels(task.train.images[index]))

        def look():
            with torch.no_grad(), in_eval_mode(self.net):
                return self.until(self.net, x).flatten(1)

        before = look()
        return lambda: F.cosine_similarity(look(), before).mean()

    def weigh(self, task):
        """Measure how much each weight of F matters for the images of the task (detail 11)."""
        net = nn.Sequential(self.standardise, self.net).train(self.net.training)
        new = importance(net, task.train, task.seen, self.config.regulariser)[:len(self.importance)]
        self.importance = (self.importance + new) / 2 if task.first else new

    # -- the memory of features

    def remember(self, task, trace):
        """Train G and D on the features of the task, or measure its classes (section 4.1)."""
        self.net.eval()
        if self.gaussians is not None:
            u, y = zip(*self.passed(task.train, pushed(task.train)))
            self.gaussians.add(torch.cat(u), torch.cat(y), range(task.first, task.seen))
        elif self.generator is not None:
            self.fit_generator(task, trace)
        else:
            return
        self.known.fill_(task.seen)

    def fit_generator(self, task, trace):
        """Train G and D; F rests."""
        config, old = self.config, frozen(self.generator) if task.first else None
        weight = config.alignment * times(task)
        optimizer_g = adam(self.generator.parameters(), config.gan_lr)
        optimizer_d = adam(self.critic.parameters(), config.gan_lr)
        batches = len(task.train) // config.batch_size
        for epoch in trace.epochs("generator", config.gan_epochs, optimizer_g, optimizer_d):
            for optimizer in (optimizer_g, optimizer_d):
                decay(optimizer, config.gan_lr, 0.3, config.gan_lr_step, epoch)
            critic, generator = 0.0, 0.0
            for i, (u, y) in enumerate(self.feature_batches(task.train, config.batch_size)):
                z = self.generator.noise(len(y))                                # (B, nz)
                critic += self.criticise(optimizer_d, u, z, y)
                if i % config.critic_steps == 0:
                    generator += self.generate(optimizer_g, z, y, old, task.first, weight)
            terms = [*(critic / batches), *(generator / -(-batches // config.critic_steps))]
            report(trace, "generator", task, epoch, {"loss": sum(terms[2:]), **dict(zip(COLUMNS[4:], terms))})

    def passed(self, images, size):
        """One pass over random views of images, `size` at a time: features (B, D) and labels (B,)."""
        for index in images.batches(size).indices():
            x, y = as_pixels(images.images[index]), images.labels[index]
            with torch.no_grad():
                u = self.features(x if self.augment is None else self.augment(x))
            yield u, y

    def feature_batches(self, images, size):
        """The same in batches of `size`, computed many at once; the last images, if too few, are left out."""
        for u, y in self.passed(images, max(1, pushed(images) // size) * size):
            for k in range(0, len(y) // size * size, size):
                yield u[k:k + size], y[k:k + size]

    def criticise(self, optimizer, u, z, y):
        """A step of D on features u (B, D) of classes y; (value, penalty) before it, (2,)."""
        with torch.no_grad():
            fake = self.generator(z, y)                                         # (B, D)
        value, penalty = critic_losses(self.critic, u, fake, y)
        step(optimizer, value + self.config.penalty * penalty)
        return torch.stack([value, penalty]).detach()

    def generate(self, optimizer, z, y, old, known, weight):
        """A step of G on classes y, held near the old G on the `known` classes; (value, alignment), (2,)."""
        value = -self.critic(self.generator(z, y), y).mean()
        held = torch.zeros((), device=y.device)
        if old is not None:
            c = torch.randint(known, (len(y),), device=y.device)
            held = weight * alignment(self.generator, old, z, c)
        own_gradients(optimizer, value + held)          # D takes no part in this step
        optimizer.step()
        return torch.stack([value, held]).detach()

    @torch.no_grad()
    def replay(self, c):
        """Features of old classes c (B,), from G or from their Gaussians: (B, D)."""
        if self.gaussians is not None:
            return self.gaussians.draw(c)
        return self.generator(self.generator.noise(len(c)), c)

    # -- answers

    def features(self, x):
        """F of images x (B, C, H, W) in [0, 1]: features (B, D), or maps."""
        return self.until(self.net, self.standardise(x))

    def forward(self, x):
        return self.after(self.features(x))                                     # (B, K)

    def recall(self, n, label=None):
        """n features (n, D) and their classes (n,): of all remembered classes in turn, or of one of them."""
        known = int(self.known)
        if not self.config.replay:
            return super().recall(n)
        if not known:
            raise LearnerError("no class is remembered yet: recall features after the first of several tasks")
        if label is not None and not 0 <= label < known:
            raise LearnerError(f"class {label} is not remembered: recall one of the classes 0 to {known - 1}")
        c = torch.arange(n, device=self.known.device) % known
        c = c if label is None else torch.full_like(c, label)
        return self.replay(c), c


class JointGFR(GFR):
    """The same network and training on all classes at once."""

    joint = stores_images = True
    tables = {name: text for name, text in GFR.tables.items() if name != "drift"}


# ---- equations

def times(task):
    """r: how many times as many classes are old as are new."""
    return task.first / (task.seen - task.first)


def balanced(new, old, r):
    """Cross-entropies of new classes and of r times as many old ones, as one: each class counts the same."""
    return (new + r * old) / (r + 1)


def distance(u, before, kind):
    """Distance of features from those of F*, equation 4: over the batch ("frob"), or the mean over images.

    The norm has gradient 0 where both agree, as they do at the first step of a task.
    """
    gap = (u - before).flatten(1)                                               # (B, D)
    return torch.linalg.vector_norm(gap) if kind == "frob" else torch.linalg.vector_norm(gap, dim=1).mean()


def pushed(images):
    """How many images of a set F is given at once."""
    return PUSHED.get(images.device.type, ELSEWHERE)


def decay(optimizer, lr, factor, every, epoch):
    """Set the learning rate of an epoch (detail 5)."""
    for group in optimizer.param_groups:
        group["lr"] = lr * factor ** ((epoch + 1) // every)


COLUMNS = ("loss", "new", "old", "regulariser", "critic", "penalty", "generator", "alignment")


def report(trace, phase, task, epoch, terms):
    """A row of the table "loss"; GanError where training has diverged."""
    finite(terms, task, epoch)
    nothing = torch.full_like(terms["loss"], torch.nan)
    trace("loss", phase=phase, epoch=epoch, **{name: terms.get(name, nothing) for name in COLUMNS})
