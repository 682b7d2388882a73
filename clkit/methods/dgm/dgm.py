"""DGM: a GAN whose generator is protected by learned binary masks, and grows (Ostapenko et al. 2019).

    python -m clkit run dgmw/digits-10 --preset teach       # masks on weights
    python -m clkit run dgma/digits-10 --preset teach       # masks on channels

    DGM(tasks): for each task t = 1, 2, ...:
        X_k <- G(z, c) with what is kept of task k, for each old class c       section 3.1     DGM.replayed
        D <- new weights, a row for each class seen                            section 4.2     Critic.grow
        e <- 0, new batch normalisation and image head                         equation 1      .begin
        for each epoch i, for each batch:
            s <- scale of the masks                                            equations 3, 4  DGM.scales
            D: steps on CE of (x, y) of D_t and of X_1 .. X_(t-1)              section 3.1     DGM.classify
            D: step on  E D(G(z)) - E D(x) + lambda_GP (|grad D| - 1)^2        section 3.1     DGM.criticise
            G: step on  -E D(G(z)) + CE + lambda_RU alpha_t R_t                equation 6      DGM.generate
               without the gradients of reserved weights                       equation 5   .shape_gradients
        m <- [e > 0];  keep m, batch normalisation, head;  M <- M or m         section 3.2     .keep
        widen the layers of G by what m has newly reserved                     section 3.3     .grow

    (.begin, .shape_gradients, .keep, .grow are of GrowingGenerator in generator.py.)

Details the paper leaves open
1. Equations 3 and 4 start the first epoch at s = s_max, with hard masks, and run down. By default the scale
   of epoch i is that of i / epochs of the way (schedule="released", the released code for ImageNet);
   schedule="paper" is the text.
2. The text subtracts the classification term in G's loss. That is right for a log-likelihood; a
   cross-entropy is added. With one class in a task it says nothing and is off, as in the released settings.
3. Equation 5 gates with tasks before t, and M is the union of all of them.
4. Masks of channels act before batch normalisation, so that a channel that is masked gives relu(beta) and
   not 0. The released code protects the weights between used channels only, and old images drift. Here all
   rows of a used channel are protected, as the text says, as far as they existed (gate="before"). With
   gate="after" the mask acts after the ReLU, and the released rule is exact.
5. Replay uses hard masks: with sigmoid(s_max e), as released, weights that count a little are not protected.
   A logit that never had a gradient is 0, and counts as unused: e > 0, not e >= 0.
6. The text says that np or np + p places are free after growth. That does not hold in general;
   expand="paper" follows its rule, expand="released" the code, which discounts what a layer gains because
   the one before it grows.
7. Adam is new for each task: an old momentum would move protected weights.
8. In each iteration D makes a step on each of t + 1 chunks of the pool of real and replayed images, so that
   the classifier has more steps than the critic; steps="pooled" makes one on all of it.
9. Only the classifier's batches count in the statistics of D's batch normalisation. Real and replayed images
   are shuffled in each epoch; the released code keeps their order.
10. The released accuracies are those of the epoch that is best on real validation images of all tasks. Here
   they are those of the last epoch.
11. The first `classes` entries of z are the one-hot class, the others are noise.

Records: tables "loss", "masks" (mask values in the course of a task), "capacity" (by layer and task) and
"growth" (by task). Keeps between tasks: both networks, and of each task its masks as bits, the statistics and
weights of its batch normalisation, and its head.
"""

from dataclasses import dataclass
from typing import Literal

import torch
from torch.nn import functional as F

from clkit.blocks.gan import Critic, Replay, classify, critic_losses, labelled_noise, signed, step
from clkit.engine.learner import Learner, LearnerError, check_config
from clkit.methods.dgm import masks
from clkit.methods.dgm.generator import GrowingGenerator

REVISION = 1


@dataclass(frozen=True)
class Config:
    """Defaults: DGMw on MNIST, as released; the paper itself states almost no setting."""

    unit: Literal["weight", "channel"] = "weight"       # what a mask has a value for: DGMw, DGMa
    expand: Literal["released", "paper", "none"] = "released"   # how layers grow (detail 6)
    gate: Literal["before", "after"] = "before"         # where the mask of a channel acts (detail 4)
    schedule: Literal["released", "paper"] = "released"  # equations 3 and 4 (detail 1)
    s_max: float = 1e4          # scale of the masks at the end of a task
    sparsity: float = 0.08      # lambda_RU: weight of R, what the masks take of what is free
    penalty: float = 1.0        # lambda_GP: weight of the gradient penalty
    adversarial: float = 1.0    # lambda_adv: weight of the critic in G's loss
    auxiliary: float = 0.0      # weight of the classification term in G's loss (detail 2)
    nz: int = 128               # entries of z, of which the first are the one-hot class
    g_width: int = 6            # channels of G's last masked layer at the start; 2 and 4 times before it
    d_width: int = 32           # maps of D's first convolution
    d_norm: bool = True         # batch normalisation in D
    anew: bool = True           # D is drawn anew in each task
    steps: Literal["chunks", "pooled"] = "chunks"       # of the classifier in an iteration (detail 8)
    replay: bool = True         # whether old classes are replayed; False: no memory at all
    masked: bool = True         # False: a plain generator, trained on, that forgets
    hard: bool = True           # replay with hard masks (detail 5)
    epochs: int = 101           # passes over the images of a task
    batch_size: int = 64        # images of each class group in an iteration
    lr: float = 2e-3            # learning rate of both Adams, whose betas are 0.5 and 0.999
    clip: float = 1e4           # largest norm of G's gradient

    def __post_init__(self):
        check_config(self, above_0="lr clip s_max")
        masks.check_scale(self.s_max)


class DGM(Learner):
    """Dynamic generative memory: DGMw and DGMa."""

    tables = {
        "loss": "one row an epoch: epoch, loss (cross-entropy), critic, penalty (its mean), generator, "
                "sparsity (R), clip (share of the gradient's norm that is left)",
        "masks": "one row a layer an epoch: layer, epoch (from 0), scale (of the epoch), values (n,) there, "
                 "of all channels or of 200 weights, mean",
        "capacity": "one row a layer a task: layer, new, reused, unused (places), width, grown (outputs)",
        "growth": "one row a task: units, weights before growth, units_after, weights_after, start (units)",
        "generated": "one row a task: accuracy (K,), judge, images (K, 8, C, S, S), from a probe",
    }
    memory_kinds = {"generator.mask": "masks", "generator.reserved": "masks", "generator.protected": "masks",
                    "generator": "generators"}

    def __init__(self, config, shape, classes):
        super().__init__(config, shape, classes)
        side = shape[1]
        if shape[1] != shape[2] or side % 8 or side < 16:
            raise LearnerError(f"DGM draws square images of 16, 24, 32, ... pixels, not {side}x{shape[2]}: "
                               f"bring them to such a size with side=")
        if classes > config.nz:
            raise LearnerError(f"z has nz={config.nz} entries, too few for one for each of {classes} classes")
        self.generator = GrowingGenerator(shape, config.nz, config.g_width, config.unit, config.gate)
        self.critic = Critic(shape, config.d_width, config.d_norm)
        self.register_buffer("ends", torch.zeros(0, dtype=torch.int64, device="cpu"))   # classes seen by task

    # -- learning

    def learn(self, task, trace):
        config, real = self.config, task.train
        old = Replay(self.replayed(len(real) // (task.seen - task.first)))
        self.critic.grow(task.seen, config.anew or not task.first)
        adam = {"lr": config.lr, "betas": (0.5, 0.999), "fused": True}
        optimizer_g = torch.optim.Adam(self.generator.begin(), **adam)
        optimizer_d = torch.optim.Adam(self.critic.parameters(), **adam)
        batches = real.batches(config.batch_size)
        for epoch in trace.epochs("generator and classifier", config.epochs, optimizer_d, optimizer_g):
            self.report_masks(epoch, trace)
            old.shuffle()
            total = 0.0
            for b, index in enumerate(batches.indices()):
                x, y = signed(real.images[index]), real.labels[index]
                s, scale = self.scales(epoch + 1, b + 1, len(batches))
                gates = self.gates(s)
                loss = self.classify(optimizer_d, *old.pool(x, y, b * config.batch_size), len(y))
                critic = self.criticise(optimizer_d, x, y, gates)
                total += torch.stack([loss, *critic, *self.generate(optimizer_g, y, gates, s, scale)])
            self.report(total / len(batches), task, epoch, trace)
        self.finish(task, trace)

    @torch.no_grad()
    def replayed(self, each):
        """`each` images of every old class, by task: [(images (N, C, S, S) in [-1, 1], labels (N,))]."""
        if not self.config.replay:
            return []
        found, first = [], 0
        for k, end in enumerate(self.ends.tolist()):
            labels = torch.arange(first, end, device=self.ends.device).repeat_interleave(each)
            parts = [self.generator.replay(self.noise(part), k) for part in labels.split(1000)]
            found.append((torch.cat(parts), labels))
            first = end
        return found

    def noise(self, labels):
        """z of images of these classes (B,): (B, nz)."""
        return labelled_noise(labels, self.classes, self.config.nz)

    def scales(self, epoch, batch, batches):
        """(s, s of the epoch): equations 3 and 4; both from 1. Masks of channels keep the epoch's scale."""
        config = self.config
        scale = masks.global_scale(epoch, config.epochs, config.s_max, config.schedule)
        return masks.local_scale(batch, batches, scale) if config.unit == "weight" else scale, scale

    def gates(self, s):
        """The masks at scale s, or ones where the generator has none."""
        soft = self.generator.soft_masks(s)
        return soft if self.config.masked else [torch.ones_like(m) for m in soft]

    def classify(self, optimizer, x, y, size):
        """Steps of D on the cross-entropy of x and y, in chunks of `size` or at once; their mean loss."""
        return classify(self.critic, optimizer, x, y, size if self.config.steps == "chunks" else len(y))

    def criticise(self, optimizer, x, y, gates):
        """A step of D as the critic of the new images x of classes y; (value, penalty) before it."""
        with torch.no_grad():
            fake = self.generator(self.noise(y), gates)                         # (B, C, S, S)
        value, penalty = critic_losses(self.critic, x, fake)
        step(optimizer, value + self.config.penalty * penalty)
        return value.detach(), penalty.detach()

    def generate(self, optimizer, y, gates, s, scale):
        """A step of G on images of classes y; (its loss, R, share of the gradient left by clipping)."""
        config, generator = self.config, self.generator
        fake = generator(self.noise(y), gates)                                  # (B, C, S, S)
        with self.critic.still():
            value, logits = self.critic(fake)
        units, start = generator.size
        taken = masks.sparsity(gates, generator.reserved)
        loss = config.sparsity * units / start * taken - config.adversarial * value.mean()
        if config.auxiliary:
            loss = loss + config.auxiliary * F.cross_entropy(logits, y)
        trained = optimizer.param_groups[0]["params"]
        for p, gradient in zip(trained, torch.autograd.grad(loss, trained, materialize_grads=True)):
            p.grad = gradient                           # of G alone: D takes no part in this step
        if config.masked:
            generator.shape_gradients(s, scale)
        norm = torch.nn.utils.clip_grad_norm_(trained, config.clip)
        optimizer.step()
        return loss.detach(), taken.detach(), (config.clip / norm).clamp(max=1)

    def report(self, terms, task, epoch, trace):
        """A row of the table "loss"; LearnerError where one of its terms is not finite."""
        terms = dict(zip(("loss", "critic", "penalty", "generator", "sparsity", "clip"), terms))
        finite = torch.stack([*terms.values()]).isfinite().tolist()
        if not all(finite):
            bad = ", ".join(name for name, good in zip(terms, finite) if not good)
            raise LearnerError(f"training diverged in epoch {epoch + 1} of task {task.index + 1} ({bad} not "
                               f"finite): use a smaller lr")
        trace("loss", epoch=epoch, **terms)

    # -- the end of a task

    def finish(self, task, trace):
        """Harden the masks, keep what belongs to the task, and let the generator grow (section 3.3)."""
        config, generator = self.config, self.generator
        hard = generator.hard_masks()
        gates = hard if config.masked else [torch.ones_like(m) for m in hard]
        found = [masks.counts(m, r) for m, r in zip(gates, generator.reserved)]
        soft = None if config.hard or not config.masked else generator.soft_masks(config.s_max)
        generator.keep(task.index, gates, reserve=config.masked, soft=soft)
        before, weights = generator.widths, sum(w.numel() for w in generator.weights)
        added = [0, 0, 0]
        if config.expand != "none" and config.masked:
            taken = [int(new) for new, *_ in found]
            areas = [k**2 for k in generator.kernels]
            added = masks.growth(taken, before, areas, config.unit, config.expand)
            generator.grow(added, normal=config.unit == "weight")
        for l, (new, reused, unused) in enumerate(found):
            trace("capacity", layer=l, new=new, reused=reused, unused=unused, width=before[l + 1],
                  grown=added[l])
        trace("growth", units=sum(before[1:]), weights=weights, units_after=generator.size[0],
              weights_after=sum(w.numel() for w in generator.weights), start=generator.size[1])
        self.ends = torch.cat([self.ends, self.ends.new_tensor([task.seen])])
        trace("generated")

    def report_masks(self, epoch, trace):
        """Rows of the table "masks": the values that the masks have as an epoch begins."""
        if not trace.wants("masks"):
            return
        _, scale = self.scales(epoch + 1, 1, 1)
        for l, m in enumerate(self.generator.soft_masks(scale)):
            places = torch.linspace(0, m.numel() - 1, min(m.numel(), 200), device=m.device).long()
            values = m.detach() if self.config.unit == "channel" else m.detach().flatten()[places]
            trace("masks", layer=l, epoch=epoch, scale=scale, values=values, mean=m.detach().mean())

    # -- answers

    def forward(self, x):
        return self.critic(2 * x - 1)[1]                                        # (B, classes seen)

    @torch.no_grad()
    def recall(self, n, label=None):
        """n images (n, C, S, S) in [0, 1] and their classes (n,): of all in turn, or of one of them."""
        if not len(self.ends):
            raise LearnerError("there is nothing to recall before the first task")
        seen = int(self.ends[-1])
        if label is not None and not 0 <= label < seen:
            raise LearnerError(f"class {label} has not been learned yet: there are 0 to {seen - 1}")
        labels = torch.arange(n, device=self.ends.device) % seen
        labels = labels if label is None else torch.full_like(labels, label)
        images = torch.empty(n, *self.shape, device=labels.device)
        for k, (first, end) in enumerate(zip([0, *self.ends.tolist()], self.ends.tolist())):
            of_task = ((labels >= first) & (labels < end)).nonzero()[:, 0]
            for part in of_task.split(1000):
                images[part] = self.generator.replay(self.noise(labels[part]), k) / 2 + 0.5
        return images, labels
