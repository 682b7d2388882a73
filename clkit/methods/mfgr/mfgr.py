"""MFGR: replay of images by a generator that is made from the old classifier alone (Xin et al. 2021).

    python -m clkit run mfgr/wardrobe --preset teach
    python -m clkit run mfgr-code/cifar100-5 --preset paper         # the settings of the released script

See also: recording.py (stage 1), inheritance.py (stage 2), losses.py (all equations), statistics.py (what
equation 5 compares), generator.py, samples.py (what is recorded of the images), papers/mfgr.py.

    MFGR(tasks): the first task: minimise CE(F(x), y)                                   inherit
        for each later task t:
            O <- F, frozen, in eval mode                                                frozen
            stage 1, knowledge recording: a new G, and no data                          record
            for each step, x <- G(z), z ~ N(0, I):
                minimise  l_oh(x) + lambda_1 l_cd(x)                   equation 4       l_oh, l_cd
                        + lambda_2 l_bn(x)                             equation 5       Statistics, l_bn
                        + lambda_3 l_div of 200 pairs of x             equations 6, 7   pairs, l_div, l_kr
            stage 2, knowledge inheritance                                              inherit
            F <- O, with a row for each new class                                       begin
            for each epoch, for each batch (x, y) of D_t:
                x' <- G(z), n_old / n_new as many as x                                  Inheritance.replayed
                minimise  (1 - lambda_4) l_ce(F(x), y)                 equation 2       l_ce
                        + lambda_4 (l_gkd(x') + l_nkd(x))              equations 3, 8   l_kd, l_ki
            drop G and O

Details the paper leaves open
1. Equations 2, 3 and l_oh have a minus sign before what is called a cross-entropy; a cross-entropy is meant.
   l_bn is printed as a sum over layers. Here, as in the released code, it is their mean, to which lambda_2 =
   20 belongs; reduction="sum" is the sum, 36 times as strong with the paper's network. l_cd has decimal
   logarithms (code): its weight of 5 is 2.17 in natural ones.
2. l_div compares pixels, not outputs: each image is a distribution over its numbers (code). An untrained
   generator has about -1. A shift of the brightness of an image changes nothing.
3. The batch normalisations between the convolutions have eps = 0.8. In the code of DAFL (Chen et al. 2019),
   from which the generator comes, the number stands where eps does, and was surely meant as the momentum.
4. The generator is trained by Adam, lr 0.01 without schedule, in 500 rounds of 120 steps (code).
5. The released script has no l_div. It has two terms that the paper has not: l_act (weight 0.1), on the
   penultimate features, and l_tv (10). It has lr = 0.1 in every task. That is `mfgr-code`. The paper has lr =
   0.01. Here the first task has base_lr = 0.1, because 0.01 may not reach the printed accuracy after it.
6. lambda_4 = iteration / (iteration + 1) counts tasks, not steps. With a larger first task the code counts it
   as several; both are n_old / n_seen.
7. The paper has as many images of an old class in a batch as of a new one, so n_old / n_new times as many
   generated images as new ones. The code generates 512 in each step (`generated`).
8. The text has equal numbers of all classes in a batch; in the code only l_cd works towards that. With
   balance=True, twice as many images are drawn, and no more of a class are kept than its share.
9. l_ce is a softmax over the new classes alone (code), and both distillation terms see old logits alone. So
   no term compares an old logit with a new one.
10. Distillation: T = 2, no factor T^2 (code). Generated images have no labels.
11. Generated and new images go through F in two passes, generated ones first (code). In one batch they would
    share the statistics of batch normalisation. Both passes move its running statistics.
12. G stays in training mode in stage 2 (code): its last batch normalisation then makes each batch exactly
    standardised. New images are shifted and mirrored, generated ones are not.
13. precision="bf16" runs the networks in bfloat16. Statistics, softmaxes, logarithms and updates stay in
    float32.

Records: tables "recording" (stage 1), "images" (in its course) and "samples" (at its end), "loss" (stage 2)
and "fine" (a place for probes); `tables` describes them.
Keeps between tasks: the classifier alone, and the number of classes seen after each task (8 bytes each). The
generator and the old classifier of the last task stay at hand for `recall` until the process ends; they are
no part of the state.
"""

from dataclasses import dataclass

import torch

from clkit.blocks.growing import begin, classifier
from clkit.blocks.pixels import Standardise
from clkit.engine.learner import Learner, LearnerError, check_config, frozen
from clkit.methods.mfgr import recording
from clkit.methods.mfgr.inheritance import LOSS, Inheritance, inherit

REVISION = 1
TRIES = 20                      # batches that `recall` draws at most


@dataclass(frozen=True)
class Config(Inheritance, recording.Recording):
    """Defaults: CIFAR-100 as in the paper, and as in the released code where the paper is silent."""

    gkd: bool = True            # distil on generated images; False: there is no generator, as in LwF

    def __post_init__(self):
        check_config(self, above_0="base_lr lr g_lr temperature ratio std", from_0="pad generated")
        recording.check(self)


class MFGR(Learner):
    """Memory-free generative replay."""

    tables = {**recording.TABLES, "loss": LOSS, "fine": "one row per task, after it; a place for probes"}

    def __init__(self, config, shape, classes):
        super().__init__(config, shape, classes)
        self.net = classifier(config.net, shape)
        self.standardise = Standardise(config.mean, config.std, shape[0])
        if config.gkd:
            recording.check_fit(config, self.net, shape)
        self.register_buffer("ends", torch.zeros(0, dtype=torch.int64, device="cpu"))   # classes seen by task
        self.recorded = None                            # (generator, old network) of the last task: no state

    def learn(self, task, trace):
        config, draw, objects = self.config, None, ()
        old = frozen(self.net) if task.first and (config.gkd or config.nkd) else None
        if task.first and config.gkd:
            generator = recording.record(config, old, self.shape, task, trace, self.classes)
            draw, objects, self.recorded = generator.draw, (generator,), (generator, old)
        begin(self.net, config, task)
        inherit(self, task, trace, old, draw, objects)
        self.ends = torch.cat([self.ends, self.ends.new_tensor([task.seen])])
        trace("fine")

    def forward(self, x):
        return self.net(self.standardise(x))                                    # (B, classes seen)

    @torch.no_grad()
    def recall(self, n, label=None):
        """n generated images (n, C, H, W) in [0, 1] and their old classes (n,), or all of one class.

        The generator is that of the last task, so its classes are those before that task; the class is the
        old network's answer. Images are cut to [0, 1]; the classifier was trained on what they were before.
        LearnerError without a generator, and for a class that it hardly ever draws.
        """
        if self.recorded is None:
            raise LearnerError("there is no generator to recall images from: one is trained before each task "
                               "but the first, and dropped when the process ends")
        (generator, old), found = self.recorded, []
        for _ in range(TRIES if label is not None else -(-n // self.config.g_batch)):
            x, _, logits = recording.drawn(self.config, generator, old, self.config.g_batch)
            labels = logits.argmax(1)
            wanted = torch.ones_like(labels, dtype=torch.bool) if label is None else labels == label
            found.append((x[wanted], labels[wanted]))
            if sum(len(part) for part, _ in found) >= n:
                break
        images, labels = (torch.cat(part)[:n] for part in zip(*found))
        if len(labels) < n:
            drawn = TRIES * self.config.g_batch
            raise LearnerError(f"of {drawn} generated images, {len(labels)} are of class {label}, fewer than "
                               f"{n}: recall fewer, or another class")
        return (images * self.standardise.std + self.standardise.mean).clamp(0, 1), labels
