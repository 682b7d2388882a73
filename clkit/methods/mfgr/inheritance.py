"""Stage 2 of MFGR, knowledge inheritance: new images, and images of old classes from wherever they come."""

import math
from dataclasses import dataclass

import torch

from clkit.blocks.gan import finite
from clkit.blocks.growing import Protocol
from clkit.blocks.memory import count_of_each
from clkit.methods.mfgr.losses import l_ce, l_kd, l_ki, lambda_4

TERMS = ("loss", "ce", "gkd", "nkd")
LOSS = ("one row per epoch: epoch, loss, ce, gkd, nkd (the terms without their weights), counts (K,) of the "
        "replayed images by class, confidence (of the old network in these classes)")


@dataclass(frozen=True)
class Inheritance(Protocol):
    """The settings of stage 2."""

    temperature: float = 2.0    # T of both distillation terms
    nkd: bool = True            # distil on new images
    ratio: float = 1.0          # replayed to new images, for each class
    generated: int = 0          # replayed images per step; 0: by the ratio
    balance: bool = False       # keep as many replayed images of each old class

    def replayed(self, new, task):
        """How many images are replayed for `new` ones: at least 2, because they are normalised."""
        old = task.first / (task.seen - task.first)
        return self.generated or max(2, round(new * self.ratio * old))


def inherit(learner, task, trace, old=None, draw=None, objects=()):
    """Train learner.net on a task, whose outputs it has, by equation 8; on the first task, by l_ce alone.

    old: the network before the task, frozen; None: nothing is distilled.   draw: a function that returns n
    standardised images of old classes (n, C, S, S); None: none are replayed.   objects: what `draw` changes,
    for the checkpoints.
    """
    config, net = learner.config, learner.net
    batches = config.batches(task.train)
    optimizer, schedule = config.sgd(net.parameters(), task, len(batches))
    phase = "knowledge inheritance" if task.first else "first task"
    for epoch in trace.epochs(phase, config.epochs_of(task), optimizer, schedule, *objects):
        total, counts, sure = 0.0, 0, 0.0
        for x, y in batches:
            x = learner.standardise(x)
            made, soft = replay(config, task, x, old, draw)
            terms = losses(config, net, task, x, y, made, soft)
            optimizer.zero_grad()
            terms[0].backward()
            optimizer.step()
            schedule.step()
            total += torch.stack(terms).detach()
            seen = torch.max(soft[:len(made)].softmax(1), 1)
            counts += count_of_each(seen.indices, learner.classes)
            sure += seen.values.sum()
        means = finite(dict(zip(TERMS, total / len(batches))), task, epoch)
        trace("loss", epoch=epoch, **means, counts=counts, confidence=sure / counts.sum())


@torch.no_grad()
def replay(config, task, x, old, draw):
    """(images to replay (N, C, S, S), logits of the old network for them and then for x (N or N + B, old)).

    x: the standardised new images (B, C, S, S).
    """
    if old is None:
        return x[:0], x.new_zeros(0, 1)
    n, made = config.replayed(len(x), task), x[:0]
    if draw is not None:
        with config.autocast(x.device):
            made = draw(2 * n if config.balance else n)                         # (N, C, S, S)
    soft = config.cast(old, torch.cat([made, x]) if config.nkd else made)       # at once: it is in eval mode
    if config.balance:
        keep = shares(soft[:len(made)].argmax(1), math.ceil(n / task.first))
        made, soft = made[keep], torch.cat([soft[:len(made)][keep], soft[len(made):]])
    return made, soft


def shares(labels, most):
    """Which of the images to keep so that no class has more than `most`: labels (N,) -> bool (N,)."""
    same = labels[:, None] == labels                                            # (N, N)
    return same.tril().sum(1) <= most


def losses(config, net, task, x, y, made, soft):
    """[equation 8, l_ce, l_gkd, l_nkd] of new images x and replayed ones `made`: two passes, `made` first."""
    gkd = nkd = x.new_zeros(())
    if len(made):
        gkd = l_kd(config.cast(net, made), soft[:len(made)], config.temperature)
    logits = config.cast(net, x)                                                # (B, seen)
    if len(soft) > len(made):
        nkd = l_kd(logits, soft[len(made):], config.temperature)
    ce = l_ce(logits, y, task.first)
    return [l_ki(ce, gkd, nkd, lambda_4(task.first, task.seen)), ce, gkd, nkd]
