"""Stage 1 of MFGR, knowledge recording: a generator is trained against a frozen network, without any data."""

from dataclasses import dataclass
from typing import Literal

import torch

from clkit.blocks.memory import count_of_each
from clkit.engine.learner import LearnerError
from clkit.methods.mfgr.generator import SMALL, Generator, start_side
from clkit.methods.mfgr.losses import l_act, l_bn, l_cd, l_div, l_oh, l_tv, pairs
from clkit.methods.mfgr.samples import pictures, summary
from clkit.methods.mfgr.statistics import Statistics

ROWS, GRIDS, SHOWN = 200, 8, 16         # rows of "recording" and of "images" in a task, images of a row
BATCHES = 4                             # of generated images that "samples" looks at
TABLES = {
    "recording": "some 200 rows per later task, each before a step of the generator: step, loss, oh, cd, bn, "
                 "div, act, tv (the terms without their weights), counts (K,) of the images by class, "
                 "confidence (mean probability of that class), gaps (L,) of the layers",
    "images": "some eight rows per later task, before a step of the generator: step, images (16, C, H, W) as "
              "bytes, each from its least to its largest value, labels (16,)",
    "samples": "one row per later task, of four batches after stage 1: images (K, 8, C, H, W) as bytes, "
               "counts (K,), confidence (K,), spread (K,) (variance of the features in a class), divergence "
               "(K,) (symmetric divergence between images of a class)",
}


@dataclass(frozen=True)
class Recording:
    """The settings of stage 1."""

    one_hot: float = 1.0        # weight of l_oh
    class_diversity: float = 5.0        # lambda_1, weight of l_cd
    statistics: float = 20.0    # lambda_2, weight of l_bn
    reduction: Literal["mean", "sum"] = "mean"          # of l_bn over layers (detail 1)
    diversity: float = 0.1      # lambda_3, weight of l_div
    activation: float = 0.0     # weight of l_act, 0.1 in the code
    tv: float = 0.0             # weight of l_tv, 10 in the code
    n_pairs: int = 200          # pairs of images in l_div
    noise: int = 1000           # entries of z
    g_maps: tuple = SMALL       # maps of the generator, at the start and after each doubling
    g_side: int | None = None   # side of the images that it draws; None: that of the images
    g_steps: int = 60_000       # steps of the generator in a task
    g_batch: int = 512          # images per step of the generator
    g_lr: float = 0.01          # learning rate of its Adam


def check(config):
    """LearnerError if the pairs of l_div do not fit into a batch, or no loss is left."""
    if not any(weights(config).values()):
        raise LearnerError("all losses of the generator have weight 0: give one of them a weight, such as "
                           "one_hot=1")
    if config.diversity and config.g_batch < 2 * config.n_pairs:
        raise LearnerError(f"g_batch={config.g_batch} generated images have no two halves for "
                           f"{config.n_pairs} pairs: use n_pairs={config.g_batch // 2} or fewer, or a larger "
                           f"g_batch")


def check_fit(config, net, shape):
    """LearnerError if the network has nothing to match, or the generator cannot draw images of this shape."""
    start_side(shape, config.g_maps, config.g_side)
    if not Statistics(net).norms:
        raise LearnerError(f"the network {config.net} has no batch normalisation, whose statistics the "
                           f"generator has to match: use a network that has it, such as resnet18")


def record(config, old, shape, task, trace, classes):
    """A generator of images of shape (C, H, W), trained against the frozen network `old`."""
    generator = Generator(shape, config.noise, config.g_maps, config.g_side).to(old.head.weight.device)
    train(config, generator, old, task, trace, classes)
    trace("samples", **look(config, generator, old, classes))
    return generator


def train(config, generator, old, task, trace, classes):
    """Train a generator by equation 7."""
    optimizer = torch.optim.Adam(generator.parameters(), lr=config.g_lr, fused=True)
    steps, last = range(config.g_steps), config.g_steps - 1
    with Statistics(old) as statistics:
        for step in trace.steps("knowledge recording", steps, optimizer, generator):
            x, features, logits = drawn(config, generator, old, config.g_batch)
            gaps = statistics.gaps()                                            # (L,)
            terms = recording_terms(config, x, features, logits, gaps)
            loss = l_kr(config, terms)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            if step == last or step % max(1, len(steps) // ROWS) == 0:
                terms = finite({"loss": loss, **terms}, step, task)
                trace("recording", step=step, **terms, **answers(logits, classes), gaps=gaps)
            if step == last or step % max(1, len(steps) // GRIDS) == 0:
                trace("images", step=step, images=pictures(x[:SHOWN].detach()),
                      labels=logits[:SHOWN].argmax(1))


def drawn(config, generator, old, n):
    """(new images (n, C, H, W), the features (n, D) and the logits (n, old) that `old` has for them)."""
    with config.autocast(old.head.weight.device):
        x = generator.draw(n)
        features = old.features(x)
        return x, features.to(x.dtype), old.head(features).to(x.dtype)


def recording_terms(config, x, features, logits, gaps):
    """The terms of a step without their weights: {name: scalar}."""
    first, second = pairs(len(x), config.n_pairs, x.device)
    return {"oh": l_oh(logits), "cd": l_cd(logits), "bn": l_bn(gaps, config.reduction),
            "div": l_div(x[first], x[second]), "act": l_act(features), "tv": l_tv(x)}


def l_kr(config, terms):
    """Equation 7, and the two terms of the released code; a term without weight costs no backward pass."""
    return sum(w * terms[name] for name, w in weights(config).items() if w)


def weights(config):
    """{term: its weight in the loss of the generator}."""
    return {"oh": config.one_hot, "cd": config.class_diversity, "bn": config.statistics,
            "div": config.diversity, "act": config.activation, "tv": config.tv}


def answers(logits, classes):
    """{counts (K,): images by the class that logits (B, old) name, confidence: its mean probability}."""
    sure, labels = logits.detach().softmax(1).max(1)
    return {"counts": count_of_each(labels, classes), "confidence": sure.mean()}


def finite(terms, step, task):
    """terms, {name: scalar} of a step; LearnerError where one of them is not finite."""
    good = torch.stack([*terms.values()]).isfinite().tolist()
    if not all(good):
        bad = ", ".join(name for name, well in zip(terms, good) if not well)
        raise LearnerError(f"the generator diverged by step {step} of task {task.index + 1} ({bad} not "
                           f"finite): use a smaller g_lr")
    return terms


@torch.no_grad()
def look(config, generator, old, classes):
    """A row of the table "samples"."""
    parts = [drawn(config, generator, old, config.g_batch) for _ in range(BATCHES)]
    return summary(*(torch.cat(part) for part in zip(*parts)), classes)
