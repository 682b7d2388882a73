"""DGM: a GAN whose generator is protected by learned binary masks, and grows (Ostapenko et al. 2019).

    python -m clkit run dgmw/digits-10 --preset teach       # masks on weights
    python -m clkit run dgma/digits-10 --preset teach       # masks on channels

See also: masks.py (the equations of the masks, growth), masked.py (what a generator keeps and protects),
generator.py and residual.py (the two generators), stored.py (real images, table 2), footprint.py (table 4),
blocks/gan.py (network D and its losses), papers/dgm.py.

    DGM(tasks): for each task t = 1, 2, ...:
        X_k <- G(z, c) with what is kept of task k, for each old class c       section 3.1     DGM.replayed
        D <- new weights, a row for each class seen                            section 4.2     TwoHeads.grow
        e <- 0, new batch normalisation and image head                         equation 1      .begin
        for each epoch i, for each batch:
            s <- scale of the masks                                            equations 3, 4  DGM.scales
            D: steps on CE of (x, y) of D_t and of X_1 .. X_(t-1)              section 3.1     DGM.classify
            D: step on  E D(G(z)) - E D(x) + lambda_GP (|grad D| - 1)^2        section 3.1     DGM.criticise
            G: step on  -E D(G(z)) + CE + lambda_RU alpha_t R_t                equation 6      DGM.generate
               without the gradients of reserved weights                       equation 5   .shape_gradients
        m <- [e > 0];  keep m, batch normalisation, head;  M <- M or m         section 3.2     .keep
        widen the layers of G by what m has newly reserved                     section 3.3     .grow

    (.begin, .shape_gradients, .keep, .grow are methods of MaskedGenerator in masked.py.)

Details the paper leaves open
1. Equations 3 and 4 start the first epoch at s = s_max, with hard masks, and lower s in its course. By
   default, the scale of epoch i is i / epochs of the way up (schedule="released", from the released code for
   ImageNet); schedule="paper" follows the text.
2. The text subtracts the classification term in G's loss. This is right for a log-likelihood; a cross-entropy
   is added. With one class in a task the term carries no information and is off, as in the released settings;
   with several it is on (auxiliary=1).
3. Equation 5 gates with tasks before t, and M is the union of all of them.
4. Masks of channels act before batch normalisation, so a masked channel outputs relu(beta), not 0. The
   released code protects only the weights between used channels, and old images drift. Here all rows of a
   used channel are protected, as in the text, as far as they existed (gate="before"). With gate="after" the
   mask acts after the ReLU, and the released rule is exact.
5. Replay uses hard masks: with sigmoid(s_max e), as released, weights that count a little are not protected.
   A logit that never had a gradient is 0, and counts as unused: e > 0, not e >= 0.
6. The text says that np or np + p places are free after growth. That does not hold in general.
   expand="paper" follows its rule; expand="released" follows the code, which subtracts what a layer gains
   because the one before it grows. The code for ImageNet divides by the inputs before growth and adds
   slightly more; here the new inputs count.
7. Adam is new for each task: an old momentum would move protected weights.
8. In each iteration D makes a step on each of t + 1 chunks of the pool of real and replayed images, so the
   classifier makes more steps than the critic; steps="pooled" makes one step on the whole pool.
9. Only the classifier's batches update the running statistics of D's batch normalisation. Real and replayed
   images are shuffled in each epoch; the released code keeps their order.
10. The released accuracies are those of the epoch that is best on real validation images of all tasks. Here
   they are those of the last epoch; the table "progress" has what the other rule needs
   (analysis/validation.py).
11. The first `classes` entries of z are the one-hot class, the others are noise. The released code reserves
   100 entries for ImageNet, although 50 classes are used.
12. The residual generator has an image head for each class, the other one a head for each task. Its logits
   start at 0.006 after the first task, and alpha_t counts weights, not channels (released code for ImageNet).
13. D is drawn anew in each task (digits, house numbers) or trained on (ImageNet: anew=False), with a new
   output of the critic in both cases.
14. The released code stores no real images. Table 2 replaces a share r of the replayed images of each class
   (real_share) or as many as a budget of K images allows, K / |classes seen| of each (real_budget). They are
   a random choice at the end of their task, fixed from then on.
15. precision="bf16" runs the classifier's steps in bfloat16, with weights in float32. Masks and critic stay
   in float32: in bfloat16 a sigmoid is 1 from about 6 on, and its gradient 0.

Records: tables "loss", "masks" (mask values in the course of a task), "capacity" (by layer and task),
"growth" (by task), "progress" and "generated" (for probes). Keeps between tasks: both networks; for each task
its masks as bits, the statistics and weights of its batch normalisation, and its heads; real images if asked
to.
"""

from dataclasses import dataclass
from typing import Literal

import torch
from torch.nn import functional as F

from clkit.blocks.gan import (
    Critic,
    Replay,
    ResidualCritic,
    adam,
    check_side,
    classify,
    criticise,
    finite,
    labelled_noise,
    labels_to_recall,
    own_gradients,
    signed,
)
from clkit.blocks.memory import count_of_each
from clkit.engine.learner import Learner, LearnerError, check_config
from clkit.methods.dgm import masks
from clkit.methods.dgm.footprint import footprint
from clkit.methods.dgm.generator import GrowingGenerator
from clkit.methods.dgm.residual import ResidualGenerator
from clkit.methods.dgm.stored import StoredImages

REVISION = 1


@dataclass(frozen=True)
class Config:
    """Defaults: DGMw on MNIST, as released; the paper itself states almost no setting."""

    unit: Literal["weight", "channel"] = "weight"       # what a mask has a value for: DGMw, DGMa
    network: Literal["dcgan", "residual"] = "dcgan"     # both networks: for digits, or as for ImageNet
    expand: Literal["released", "paper", "none"] = "released"   # how layers grow (detail 6)
    gate: Literal["before", "after"] = "before"         # where the mask of a channel acts (detail 4)
    schedule: Literal["released", "paper"] = "released"  # equations 3 and 4 (detail 1)
    s_max: float = 1e4          # scale of the masks at the end of a task
    sparsity: float = 0.08      # lambda_RU: weight of R, the share of what is free that the masks take
    penalty: float = 1.0        # lambda_GP: weight of the gradient penalty
    adversarial: float = 1.0    # lambda_adv: weight of the critic in G's loss
    auxiliary: float = 0.0      # weight of the classification term in G's loss (detail 2)
    nz: int = 128               # entries of z, of which the first are the one-hot class
    g_width: int = 6            # channels at the start of G's last masked layer, and 2 and 4 times as many
                                # before it; of each layer in the residual generator
    d_width: int = 32           # maps of D's first convolution
    d_norm: bool = True         # batch normalisation in D
    anew: bool = True           # draw D anew in each task (detail 13)
    steps: Literal["chunks", "pooled"] = "chunks"       # of the classifier in an iteration (detail 8)
    precision: Literal["fp32", "bf16"] = "fp32"         # of the classifier's steps (detail 15)
    replay: bool = True         # replay old classes; False: no memory at all
    real_share: float = 0.0     # r: share of the replayed images of a class that are real (detail 14)
    real_budget: int = 0        # K: real images over all classes seen (detail 14)
    masked: bool = True         # False: a plain generator that is trained on, and forgets
    hard: bool = True           # replay with hard masks (detail 5)
    epochs: int = 101           # passes over the images of a task
    batch_size: int = 64        # images of the new task, and of each old one, in an iteration
    lr: float = 2e-3            # learning rate of both Adams, whose betas are 0.5 and 0.999
    clip: float = 1e4           # largest norm of G's gradient

    def __post_init__(self):
        check_config(self, above_0="lr clip s_max", from_0="real_budget", up_to_1="real_share")
        masks.check_scale(self.s_max)
        if self.network == "residual" and (self.gate == "after" or not self.d_norm):
            raise LearnerError("the residual networks need gate='before' and d_norm=True: leave both out")
        if self.real_share and self.real_budget:
            raise LearnerError("real_share and real_budget are two ways to choose how many real images are "
                               "kept: give one of them")
        if not self.replay and (self.real_share or self.real_budget):
            raise LearnerError("without replay no real images are kept: leave out real_share and real_budget")


class DGM(Learner):
    """Dynamic generative memory: DGMw and DGMa."""

    tables = {
        "loss": "one row per epoch: epoch, loss (cross-entropy), critic, penalty (its mean), generator, "
                "sparsity (R), clip (share of the gradient's norm that is left)",
        "masks": "one row per layer and epoch: layer, epoch (from 0), scale (of the epoch), values (n,) as "
                 "the epoch begins, of all channels or of 200 weights, and their mean over the layer",
        "capacity": "one row per layer and task: layer, places newly reserved (new), reused and unused, "
                    "width (outputs before growth), grown (outputs added)",
        "growth": "one row per task: channels (units) and masked weights (weights) before growth, both after "
                  "it (units_after, weights_after), channels at the start (start); before growth, bytes of "
                  "masked weights (weight_bytes), heads and batch normalisation of all tasks (task_bytes), "
                  "all masks as bits (bit_bytes), as int32 indices (index_bytes) and as PyTorch's sparse "
                  "tensors (coo_bytes), and the logits in training (logit_bytes)",
        "progress": "one row per epoch, after it: epoch; a place for probes",
        "generated": "one row per task, from a probe: accuracy (K,) and judge (), images (K, 8, C, S, S)",
    }
    memory_kinds = {"generator.mask": "masks", "generator.reserved": "masks", "generator.protected": "masks",
                    "generator": "generators", "stored": "exemplars"}

    def __init__(self, config, shape, classes):
        super().__init__(config, shape, classes)
        check_side(shape)
        if classes >= config.nz:
            raise LearnerError(f"z has nz={config.nz} entries, too few for a one-hot class of {classes} and "
                               f"noise: use nz={classes + 1} or more")
        if 0 < config.real_budget < classes:
            raise LearnerError(f"real_budget={config.real_budget} is too small for {classes} classes: it "
                               f"must hold an image of each")
        if config.network == "residual":
            self.generator = ResidualGenerator(shape, config.nz, config.g_width, config.unit)
            self.critic = ResidualCritic(shape, config.d_width)
        else:
            self.generator = GrowingGenerator(shape, config.nz, config.g_width, config.unit, config.gate)
            self.critic = Critic(shape, config.d_width, config.d_norm)
        self.stores_images = bool(config.real_share or config.real_budget)
        self.stored = (StoredImages(shape, config.real_share, config.real_budget) if self.stores_images
                       else None)
        self.register_buffer("ends", torch.zeros(0, dtype=torch.int64, device="cpu"))   # classes seen by task

    # -- learning

    def learn(self, task, trace):
        config, real = self.config, task.train
        if config.network == "residual" and len(real) % config.batch_size == 1:
            raise LearnerError(f"batches of {config.batch_size} leave one of {len(real)} images alone, which "
                               f"cannot be normalised: use another batch_size")
        old = Replay(self.replayed(_per_class(task)))
        self.critic.grow(task.seen, config.anew or not task.first)
        optimizer_g = adam(self.generator.begin(task.seen - task.first, task.index), config.lr)
        optimizer_d = adam(self.critic.parameters(), config.lr)
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
            names = ("loss", "critic", "penalty", "generator", "sparsity", "clip")
            trace("loss", epoch=epoch, **finite(dict(zip(names, total / len(batches))), task, epoch))
            trace("progress", epoch=epoch)
        self.finish(task, trace)

    @torch.no_grad()
    def replayed(self, each):
        """`each` images of every old class, by task: [(images (N, C, S, S) in [-1, 1], labels (N,))].

        Stored real images come first, generated ones make up the number.
        """
        if not self.config.replay:
            return []
        found, first, ends = [], 0, self.ends.tolist()
        for k, end in enumerate(ends):
            classes, missing, parts = torch.arange(first, end, device=self.ends.device), each, []
            if self.stores_images:
                real, y = self.stored.of(first, end, each, ends[-1])
                missing = each - count_of_each(y, end)[first:]                  # (classes of task k,)
                parts.append((signed(real), y))
            labels = classes.repeat_interleave(missing)
            parts.append((self.drawn(labels, k, first), labels))
            found.append(tuple(torch.cat(part) for part in zip(*parts)))
            first = end
        return found

    def drawn(self, labels, task, first):
        """Images in [-1, 1] of classes (N,) of a finished task, whose first class is `first`."""
        return torch.cat([self.generator.replay(self.noise(part), task, part - first)
                          for part in labels.split(1000)])

    def noise(self, labels):
        """z of images of these classes (B,): (B, nz)."""
        return labelled_noise(labels, self.classes, self.config.nz)

    def fake(self, y, gates):
        """Images of classes y (B,) of the task that is being learned, under these masks."""
        return self.generator(self.noise(y), gates, y - (self.ends[-1] if len(self.ends) else 0))

    def scales(self, epoch, batch, batches):
        """(s, s of the epoch): equations 3 and 4; both from 1. Masks of channels keep the epoch's scale."""
        config = self.config
        scale = masks.global_scale(epoch, config.epochs, config.s_max, config.schedule)
        return masks.local_scale(batch, batches, scale) if config.unit == "weight" else scale, scale

    def gates(self, s):
        """The masks at scale s, or ones if the generator has none (masked=False)."""
        soft = self.generator.soft_masks(s)
        return soft if self.config.masked else [torch.ones_like(m) for m in soft]

    def classify(self, optimizer, x, y, size):
        """Steps of D on the cross-entropy of x and y, in chunks of `size` or at once; their mean loss."""
        return classify(self.cast, optimizer, x, y, size if self.config.steps == "chunks" else len(y))

    def cast(self, x):
        """D of images x in the precision of the classifier's steps: (critic's value, logits)."""
        with torch.autocast(x.device.type, torch.bfloat16, enabled=self.config.precision == "bf16"):
            value, logits = self.critic(x)
        return value, logits.to(x.dtype)

    def criticise(self, optimizer, x, y, gates):
        """A step of D as the critic of the new images x of classes y; (value, penalty) before it."""
        with torch.no_grad():
            fake = self.fake(y, gates)                                          # (B, C, S, S)
        return criticise(self.critic, optimizer, x, fake, self.config.penalty)

    def generate(self, optimizer, y, gates, s, scale):
        """A step of G on images of classes y; (its loss, R, share of the gradient left by clipping)."""
        config, generator = self.config, self.generator
        with self.critic.still():
            value, logits = self.critic(self.fake(y, gates))
        now, start = generator.size
        taken = masks.sparsity(gates, generator.reserved)
        loss = config.sparsity * now / start * taken - config.adversarial * value.mean()
        if config.auxiliary:
            loss = loss + config.auxiliary * F.cross_entropy(logits, y)
        own_gradients(optimizer, loss)                  # D takes no part in this step
        if config.masked:
            generator.shape_gradients(s, scale)
        norm = torch.nn.utils.clip_grad_norm_(optimizer.param_groups[0]["params"], config.clip)
        optimizer.step()
        return loss.detach(), taken.detach(), (config.clip / norm).clamp(max=1)

    # -- the end of a task

    def finish(self, task, trace):
        """Harden the masks, keep what belongs to the task, and let the generator grow (section 3.3)."""
        config, generator = self.config, self.generator
        hard = generator.hard_masks()
        gates = hard if config.masked else [torch.ones_like(m) for m in hard]
        found = [masks.counts(m, r) for m, r in zip(gates, generator.reserved)]
        soft = None if config.hard or not config.masked else generator.soft_masks(config.s_max)
        generator.keep(task.index, gates, reserve=config.masked, soft=soft)
        widths, weights = generator.widths, sum(w.numel() for w in generator.weights)
        bytes_kept = footprint(generator, task.index + 1) if trace.wants("growth") else {}
        added = self.widen([int(new) for new, *_ in found])
        for l, ((_, j), (new, reused, unused)) in enumerate(zip(generator.links, found)):
            trace("capacity", layer=l, new=new, reused=reused, unused=unused, width=widths[j],
                  grown=added[j - 1])
        units_after, start = generator.units
        trace("growth", units=sum(widths[1:]), weights=weights, units_after=units_after,
              weights_after=sum(w.numel() for w in generator.weights), start=start, **bytes_kept)
        if self.stores_images:
            new = range(task.first, task.seen)
            self.stored.add(task.train.images, task.train.labels, new, _per_class(task))
        self.ends = torch.cat([self.ends, self.ends.new_tensor([task.seen])])
        trace("generated")

    def widen(self, taken):
        """Widen the layers, of which masks have newly reserved `taken` places; channels added by width."""
        config, generator = self.config, self.generator
        if config.expand == "none" or not config.masked:
            return [0] * generator.depth
        areas = [k**2 for k in generator.kernels]
        added = masks.growth(taken, generator.widths, areas, generator.links, config.unit, config.expand)
        generator.grow(added)
        return added

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
        labels = labels_to_recall(n, label, self.ends)
        images = torch.empty(n, *self.shape, device=labels.device)
        for k, (first, end) in enumerate(zip([0, *self.ends.tolist()], self.ends.tolist())):
            of_task = ((labels >= first) & (labels < end)).nonzero()[:, 0]
            images[of_task] = self.drawn(labels[of_task], k, first) / 2 + 0.5
        return images, labels


def _per_class(task):
    """The mean number of images of a class of the task: as many of each old class are replayed."""
    return len(task.train) // (task.seen - task.first)
