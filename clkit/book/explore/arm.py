"""What a recall shows, step by step: the images, what both networks say of one, terms of the objective."""

import dataclasses

import matplotlib.pyplot as plt
import numpy as np

from clkit import plots
from clkit.book.explore.common import ExploreError, explorer, slider
from clkit.book.show import View


def recall_view(learner, x, y, step=-1, image=0, names=None):
    """What a learner (ARM or ADI) recalls for the batch x (B, C, H, W), y (B,), after some of its steps.

    step: 0 before the first, negative from the end.   image: of those recalled, from 0.
    names: of the classes. Above the images as they are now and as they began; below both networks' outputs
    for one image, and how the terms of the objective have changed. Nothing is learned, and the random
    numbers of others stay as they are.
    """
    return _recall(_remembered(learner, x, y), step, image, names)


def _remembered(learner, x, y):
    """What `learner.recall_for` gives for a batch, as arrays, with the outputs in each step."""
    import torch

    with torch.random.fork_rng([x.device] if x.is_cuda else []):
        torch.manual_seed(0)  # the same images whenever this is asked
        found = learner.recall_for(x, y)
    arrays = {k: None if v is None else v.detach().cpu().numpy() for k, v in found._asdict().items()}
    logits = arrays["logits"] - arrays["logits"].max(axis=-1, keepdims=True)  # (S, 2, n, K)
    outputs = np.exp(logits) / np.exp(logits).sum(axis=-1, keepdims=True)
    config = dataclasses.asdict(learner.config)
    terms = plots.contributions(dict(zip(plots.TERMS, arrays["values"].T, strict=True)), config)
    return arrays | {"outputs": outputs, "terms": terms, "name": plots.style(config["recall"])["label"]}


def _recall(found, step, image, names):
    """The View of a step of what `_remembered` gave."""
    last, count = len(found["outputs"]), len(found["start"])
    if not -last - 1 <= step <= last:
        raise ExploreError(f"the recall has {last} steps: there is no step {step}")
    if not 0 <= image < count:
        raise ExploreError(f"{count} images are recalled, numbered from 0: there is no image {image}")
    step %= last + 1
    names = [str(n) for n in (range(found["probs"].shape[1]) if names is None else names)]
    outputs = {"old network": found["probs"][image]}
    if step < last:
        outputs = dict(zip(("old network", "new network"), found["outputs"][step, :, image]))
    probs = found["probs"] if step == last else found["outputs"][step, 0]  # (n, K)
    board = [["images"] * 2, ["outputs"] * 2, ["terms", "."]]  # the legend of the terms stands in the gap
    look = {"figsize": (7.4, 7.6), "height_ratios": (1.1, 0.8, 1), "width_ratios": (1, 0.85)}
    figure, axes = plt.subplot_mosaic(board, **look, layout="constrained")
    above = axes["images"]
    images, start, origins = found["steps"][step], found["start"], found["origins"]
    plots.plot_pairs(images, start, probs, origins, found["multiplicity"], names=names, ax=above)
    above.set_title(f"{found['name']}, {step} of {last} steps done", fontsize=11)
    above.texts[image].set(weight="bold", color="#D55E00")
    bars = plots.plot_outputs(outputs, names=names, ax=axes["outputs"])
    bars.set_xlabel(f"class of image {image + 1}", color="#D55E00")
    legend = plots.plot_terms(found["terms"], at=step, ax=axes["terms"]).get_legend()
    legend.set_in_layout(False)  # it would narrow the panels above too
    figure.draw_without_rendering()
    figure.set_layout_engine("none")
    legend.set_in_layout(True)  # the saved picture holds all of it
    return View(above, _about_recall(found, step, image, names, outputs))


def _about_recall(found, step, image, names, outputs):
    """What `_recall` shows, in words."""
    origin, pixels, total = found["origins"][image], found["steps"][step][image], sum(found["terms"].values())
    said = [f"{names[p.argmax()]} to the {net} ({100 * p.max():.0f} %)" for net, p in outputs.items()]
    change = f" and is {total[step]:.2f} now" if 0 < step < len(total) else ""
    return (
        f"Recall of {found['name']} after {step} of {len(total)} steps, {len(found['start'])} images: image "
        f"{image + 1}, which began as {'noise' if origin < 0 else names[origin]}, is {' and '.join(said)}; "
        f"its pixels range from {pixels.min():.1f} to {pixels.max():.1f}. The objective was {total[0]:.2f} "
        f"at the start{change}."
    )


# ---- explorer


def recall_explorer(learner, x, y, names=None):
    """Sliders over the steps and over the images around `recall_view`; recalled once."""
    found = _remembered(learner, x, y)
    return explorer(
        lambda step, image: _recall(found, step, image - 1, names),
        step=slider("steps done", len(found["outputs"]), first=0),
        image=slider("image", len(found["start"])),
    )
