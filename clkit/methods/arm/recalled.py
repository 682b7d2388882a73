"""Images recalled for one batch: their data, their rows in a trace, and a check that they are finite."""

import math
from typing import NamedTuple

import torch

from clkit.engine.learner import LearnerError


class RecalledBatch(NamedTuple):
    """Images for one batch, before or after their optimisation; n is M, or fewer that stand for M."""

    start: torch.Tensor                 # (n, C, H, W) where they begin
    images: torch.Tensor                # (n, C, H, W) as they are now
    origins: torch.Tensor               # (n,) class of the image each begins as, -1: noise
    class_weights: torch.Tensor         # (K,) 1 / C for the C classes of the batch, else 0
    index: torch.Tensor | None = None   # (n,) image of the batch that each begins as, where drawn
    target: torch.Tensor | None = None  # (n,) class each is to show (adi)
    multiplicity: torch.Tensor | None = None  # (n,) how many of the M images each is; None: one
    values: torch.Tensor | None = None  # (S, 9) TERMS in each step, 0 for one without weight
    steps: torch.Tensor | None = None   # (S + 1, n, C, H, W) images before each step and after the last
    logits: torch.Tensor | None = None  # (S, 2, n, K) of the old and the new network before each step
    probs: torch.Tensor | None = None   # (n, K) probabilities of the old network for the images

    @property
    def image_weights(self):
        """Weight of each image in a mean, (n,); they sum to 1."""
        if self.multiplicity is None:
            return self.images.new_full((len(self.images),), 1 / max(1, len(self.images)))
        return self.multiplicity / self.multiplicity.sum()


def report(recalled, terms, step, images, trace):
    """Rows of the tables "recall" and "objective", and if `images` also of "images", for a RecalledBatch.

    terms: names of the columns of its values. Without images the numbers are NaN.
    """
    n, x = len(recalled.images), recalled.images
    if trace.wants("recall"):
        low, high = x.aminmax() if n else (x.new_full((), math.nan),) * 2
        output = recalled.image_weights @ recalled.probs if n else low.expand(recalled.probs.shape[1])
        trace("recall", step=step, output=output, low=low, high=high)
    if trace.wants("objective"):
        trace("objective", step=step, **dict(zip(terms, recalled.values.T)))
    if images and trace.wants("images"):
        counts = x.new_ones(n) if recalled.multiplicity is None else recalled.multiplicity
        trace("images", step=step, start=recalled.start, recalled=x, origins=recalled.origins, counts=counts,
              probs=recalled.probs)


class NonFiniteGuard:
    """Finds the batch, step and term of the first recall that was not finite.

    weights: {term: its weight}, in the order of the columns of `values`.
    """

    def __init__(self, weights, device):
        self.terms, self.weights = list(weights), torch.tensor([*weights.values()], device=device)
        self.found = torch.full((3,), -1, device=device)

    def look(self, step, values, images):
        """Check batch number `step`; values: (S, terms) by step of its optimisation; images: its result.

        The step to blame is the last one with finite terms, and in it the largest term; if there is none, it
        is the first step, and in it the first term that is not finite.
        """
        bad = ~values.isfinite()                                                # (S, terms)
        good = (~bad.any(1)).cumprod(0).sum()           # how many steps began with finite terms
        last = (good - 1).clamp(min=0)
        terms = (values * self.weights).index_select(0, last[None])[0].abs()    # (terms,)
        term = torch.where(good > 0, terms.argmax(), bad[0].to(torch.uint8).argmax())
        wrong = ((good < len(values)) | ~images.isfinite().all()) & (self.found[0] < 0)
        self.found = torch.where(wrong, torch.stack([torch.full_like(last, step), last, term]), self.found)

    def check(self):
        """Stop with a sentence if a recall was not finite."""
        batch, step, term = self.found.tolist()
        if batch >= 0:
            raise LearnerError(f"the recall of batch {batch} diverged in step {step} of its optimisation "
                               f"through the term {self.terms[term]!r}: lower image_lr, lr or that term's "
                               "weight")

    def state_dict(self):
        """The place found, or -1."""
        return {"found": self.found}

    def load_state_dict(self, state):
        """Restore a `state_dict`."""
        self.found = state["found"].to(self.found.device)
