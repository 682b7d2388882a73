"""What a judge makes of the images that a learner draws: `gen_acc`, the accuracy on generated images.

The judge is a network that has learned the real training images of all classes, and never changes; it always
has the same weights for the same stream. The share of a class's images that it takes for that class says
whether the learner still draws it. That is how Wu et al. (2018) score a generator; it is a different scale
from the accuracy of the learner's own classifier on real images, with which it must not be ranked.

The random numbers of a class are the same after every task. So the images of a generator that does not change
stay the same, and its accuracy to the last digit.
"""

import math
from functools import lru_cache

import torch
from torch.nn import functional as F

from clkit.blocks import nets
from clkit.engine.evaluate import in_eval_mode
from clkit.engine.seeding import random_state, seed_everything, set_random_state

SHOWN = 8  # images of each class that are kept
STEPS, EPOCHS = 1000, (2, 20)  # of the judge: so many steps, if that is within these numbers of epochs


def columns(stream, device, n):
    """{column: function of the learner}, of a learner that draws a class: recall(n, label), and has `ends`.

    accuracy (K,): of the judge on n images of each class, NaN for classes to come.   judge (): its accuracy
    on real test images.   images (K, 8, C, S, S): uint8, zeros for classes to come. The judge is trained when
    a row is first asked for; a run that is complete needs none.
    """
    place = str(device)
    return {
        "accuracy": lambda learner: accuracy(judge(stream, place)[0], learner, n),
        "judge": lambda learner: judge(stream, place)[1],
        "images": images,
    }


@lru_cache(maxsize=2)
def judge(stream, device):
    """(network, its accuracy on the test images): trained on the images of all classes, always from seed 0.

    The random state is as before.
    """
    state = random_state()
    try:
        seed_everything(0)
        real = stream.merged()[0].train.to(device)
        net = nets.ConvNet(stream.shape, stream.classes, widths=(16, 16, 32, 32)).to(device)
        with torch.enable_grad():
            fit(net, real)
    finally:
        set_random_state(state)
    test = stream.test.to(device)
    with torch.no_grad():
        right = torch.cat([net(x).argmax(1) == y for x, y in test.batches(500, shuffle=False)])
    return net, right.float().mean()


def fit(net, real):
    """Minimise the cross-entropy with Adam."""
    optimizer = torch.optim.Adam(net.parameters(), lr=2e-3, fused=True)
    batches = real.batches(32)
    for _ in range(min(max(math.ceil(STEPS / len(batches)), EPOCHS[0]), EPOCHS[1])):
        for x, y in batches:
            loss = F.cross_entropy(net(x), y)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()


@torch.no_grad()
def accuracy(net, learner, n):
    """Share of n images that the judge takes for the class that they were drawn as: (K,)."""
    found = torch.full((learner.classes,), math.nan, device=learner.ends.device)
    for label in range(seen(learner)):
        found[label] = (net(drawn(learner, n, label)).argmax(1) == label).float().mean()
    return found


def images(learner):
    """The first images that the learner draws of each class: (K, 8, C, S, S), uint8."""
    found = torch.zeros(learner.classes, SHOWN, *learner.shape, dtype=torch.uint8, device=learner.ends.device)
    for label in range(seen(learner)):
        found[label] = (255 * drawn(learner, SHOWN, label)).round().clamp(0, 255)
    return found


def seen(learner):
    """The number of classes that a learner has learned."""
    return int(learner.ends[-1])


def drawn(learner, n, label):
    """n images of a class, (n, C, S, S), from the random numbers of this class; the random state returns."""
    state = random_state()
    try:
        seed_everything(label)
        with in_eval_mode(learner):
            return learner.recall(n, label)[0]
    finally:
        set_random_state(state)
