"""For notebooks: show source, figures and tables, and explore results with sliders.

    show(Finetune.learn)                                    the source that runs, never a copy of it
    figure(ax, id="...", alt="...", caption="...")          a picture and its description as text
    table([comparison(published.one(...), results)])        published | ours | n | interval | verdict
    confusion_explorer({"finetune": results, ...})          sliders around a plot

An explorer wraps a *view*: a plain function of results and of a place, which returns View(axes, text). The
same view is called once in an ordinary cell, ``figure(*confusion_view(results, stage=4), id=...,
caption=...)``, so that the picture is there without a front end. No callback trains anything, and the
pictures of an explorer carry their text with them.
"""

import base64
import dataclasses
import html
import inspect
import io
import math
import re
import textwrap
from collections import namedtuple
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np

from clkit import plots
from clkit.analysis import masks
from clkit.result import interval

DPI = 144  # of a picture; it is shown at 96, sharp on finer screens too
SHORTEST = 40                                           # characters of a description


class ExploreError(ValueError):
    """Something that cannot be shown; the message says why and what to do."""


# ---- source

def show(*things):
    """Display the source of functions, methods, classes or modules, with its file and lines."""
    for thing in things:
        head, code = _source(thing)
        _display({"text/html": _coloured(head, code), "text/plain": f"{head}\n\n{code}"})


def _source(thing):
    """(name and place, source) of one thing."""
    thing = thing.fget if isinstance(thing, property) else inspect.unwrap(thing) if callable(thing) else thing
    name = getattr(thing, "__qualname__", getattr(thing, "__name__", type(thing).__name__))
    if not (callable(thing) or inspect.ismodule(thing)):
        raise ExploreError(f"show() takes a function, method, class or module, not a {type(thing).__name__}")
    try:
        lines, first = inspect.getsourcelines(thing)
    except (OSError, TypeError):
        raise ExploreError(
            f"there is no Python source of {name}: it is built in, or was typed where none is kept"
        ) from None
    code = textwrap.dedent("".join(lines)).rstrip()
    where = _where(thing, max(first, 1), len(lines))
    return f"{name} {where}", code


def _coloured(head, code):
    """Source as HTML with its colours written out: they need no style sheet and suit light and dark pages."""
    from pygments import highlight
    from pygments.formatters import HtmlFormatter
    from pygments.lexers import PythonLexer
    box = "background: #f7f7f7; color: #111; padding: 0.6em 0.8em; overflow-x: auto; border: 1px solid #ddd"
    letters = (
        "font-family: monospace; font-size: 13px; line-height: 1.35; margin: 0; background: none; color:"
        " inherit"
    )
    look = HtmlFormatter(style="default", noclasses=True, nobackground=True, cssstyles=box, prestyles=letters)
    return f"<p><b>{html.escape(head)}</b></p>{highlight(code, PythonLexer(stripall=False), look)}"


def _where(thing, first, count):
    module = thing if inspect.ismodule(thing) else inspect.getmodule(thing)
    if module is None or module.__name__ == "__main__":
        return "(defined in this notebook)"
    file = Path(inspect.getsourcefile(module)).name
    parts = module.__name__.split(".")
    folder = parts if file == "__init__.py" else parts[:-1]
    return f"({'/'.join([*folder, file])}, lines {first} to {first + count - 1})"


# ---- figures

def figure(picture, alt=None, *, id, caption):
    """Display a figure with its caption and its description, and close it.

    picture: a Figure or Axes, or a View of this module.   alt: what the picture shows, for those who do not
    see it: 40 characters or more (a View has its own).   id: its name, lower case with hyphens.   caption: a
    sentence or two. The description is stored with the image and stands below it as text: not all viewers
    read it from the image.
    """
    if isinstance(picture, View):
        picture, alt = picture.axes, alt or picture.text
    alt = " ".join((alt or "").split())
    if len(alt) < SHORTEST:
        raise ExploreError(
            f"the description (alt) of figure '{id}' has {len(alt)} characters: say in {SHORTEST} or more"
            " what it shows"
        )
    if not re.fullmatch(r"[a-z0-9]+(-[a-z0-9]+)*", id):
        raise ExploreError(f"the id of a figure is lower-case words joined by hyphens, not '{id}'")
    drawn = picture if hasattr(picture, "savefig") else picture.figure
    image, width, height = _png(drawn, {"Title": id, "Description": alt})
    plt.close(drawn)
    size = {"alt": alt, "width": width, "height": height}
    _display(
        {"image/png": base64.b64encode(image).decode(), "text/plain": f"figure {id}: {alt}"},
        {"image/png": size},
    )
    _display({"text/markdown": f"**{id}.** {caption}\n\n*Description:* {alt}",
              "text/plain": f"{id}. {caption}\nDescription: {alt}"})


def _png(drawn, facts=None):
    """(PNG bytes, width, height to show it at); the bytes are the same whenever the figure is."""
    notes = [t.get_text() for t in drawn.findobj(lambda a: getattr(a, "get_gid", lambda: None)() == "stamp")]
    about = {"Comment": " ".join(notes)} if notes else {}
    file = io.BytesIO()
    drawn.savefig(file, format="png", dpi=DPI, bbox_inches="tight", facecolor="white",
                  metadata={"Software": None, **about, **(facts or {})})
    image = _few_colours(file.getvalue())
    width, height = (int.from_bytes(image[n:n + 4], "big") for n in (16, 20))      # of the header of a PNG
    return image, width * 96 // DPI, height * 96 // DPI


def _few_colours(png):
    """The same PNG with a palette of 256 colours: a third of the bytes, and no plot here needs more."""
    from PIL import Image, PngImagePlugin
    picture, notes, file = Image.open(io.BytesIO(png)), PngImagePlugin.PngInfo(), io.BytesIO()
    for key, text in picture.text.items():
        notes.add_text(key, text)
    picture = picture.convert("RGB").quantize(256, Image.Quantize.MAXCOVERAGE, dither=Image.Dither.NONE)
    picture.save(file, "png", optimize=True, pnginfo=notes)
    return file.getvalue()


def _display(data, metadata=None):
    from IPython.display import display
    display(data, raw=True, metadata=metadata or {})


# ---- tables

def table(rows, columns=None):
    """Display rows (dictionaries) as a table; columns: their order, by default as in the first row."""
    rows = [dict(r) for r in rows]
    if not rows:
        raise ExploreError("a table needs at least one row")
    columns = list(columns or rows[0])
    cells = [[_cell(r.get(c, "")) for c in columns] for r in rows]
    marks = ["---:" if all(_is_number(line[n]) for line in cells) else "---" for n in range(len(columns))]
    lines = [columns, marks, *cells]
    markdown = "\n".join("| " + " | ".join(str(x).replace("|", "\\|") for x in line) + " |" for line in lines)
    widths = [max(len(line[n]) for line in [columns, *cells]) for n in range(len(columns))]
    plain = "\n".join(
        "  ".join(x.ljust(w) for x, w in zip(line, widths)).rstrip() for line in [columns, *cells]
    )
    _display({"text/markdown": markdown, "text/plain": plain})


def _cell(value):
    if isinstance(value, float | np.floating):
        return "-" if np.isnan(value) else f"{value:.2f}"
    return " ".join(str(value).split())


def _is_number(text):
    return re.fullmatch(r"[-+]?[\d.,]+|-", text) is not None


SCORES = {
    "average accuracy": lambda r: r.average(),
    "forgetting": lambda r: r.forgetting(),
    "average incremental accuracy": lambda r: r.incremental(),
    "task-aware accuracy": lambda r: r.within_average(),
}


def comparison(published, results, *, score=None, tolerance=1.0, reason=""):
    """A row for `table`: a published number beside ours.

    published: a Published, or None where nothing is printed.   results: list of Results, one a seed.
    score: function of a Result with a fraction as its value; by default what the published metric is called.
    tolerance: difference in percentage points that counts as the same even where the intervals are narrower.
    reason: why it differs, where it does.
    """
    metric = published.metric if published else "average accuracy"
    if score is None:
        if metric not in SCORES:
            raise ExploreError(
                f"there is no score called '{metric}' ({', '.join(SCORES)}): give score=, a function of a"
                " Result"
            )
        score = SCORES[metric]
    ours = interval([score(r) for r in results])
    method = plots.style(results[0].about.get("method", "learner"))["label"]
    half = "none (single seed)" if ours.n < 2 else f"± {100 * ours.half:.2f} ({ours.kind})"
    return {
        "method": method,
        "score": f"{metric} (%)",
        "published": f"{published}, {published.place}" if published else "not printed",
        "ours": f"{100 * ours.mean:.2f}",
        "n": ours.n,
        "interval": half,
        "verdict": verdict(published, ours, tolerance, reason, plots.warning(results)),
    }


def verdict(published, ours, tolerance=1.0, reason="", warning=""):
    """Whether a number was reproduced, in words. ours: Interval of fractions; published: in percent."""
    if published is None:
        return "nothing to compare"
    if warning:
        return f"not comparable ({warning})"
    gap = 100 * ours.mean - published.value
    allowed = max(tolerance, (published.spread or 0) + (0 if ours.n < 2 else 100 * ours.half))
    if abs(gap) <= allowed:
        return "reproduced"
    return f"{abs(gap):.1f} points {'higher' if gap > 0 else 'lower'}" + (f": {reason}" if reason else "")


# ---- views: plain functions, one picture each

View = namedtuple("View", "axes text")


def confusion_view(results, stage=-1, seed=None, by_group=False):
    """The confusion of one method after a stage (from 0), of all seeds together or of one seed."""
    seeds = _chosen(results, seed)
    ax = plots.plot_confusion(seeds, stage, by_group=by_group)
    stage = stage % len(seeds[0].seen)
    right = 100 * np.mean([r.averages("images")[stage] for r in seeds])
    newest = 100 * np.mean([r.newest_share(stage) for r in seeds])
    text = (
        f"Confusion matrix of {_name(seeds)} {_after(seeds[0], stage)}, {_seeds(seeds)}: {right:.1f} % of the"
        f" images of {seeds[0].seen[stage]} classes are on the diagonal"
    )
    more = (
        f", and {newest:.1f} % of all predictions fall on the newest task." if len(seeds[0].seen) > 1 else "."
    )
    return View(ax, text + more)


def matrix_view(results, stage=-1):
    """The accuracy matrix of one method after a stage (from 0), its average and forgetting in words."""
    seeds = _chosen(results, None)
    stage = stage % len(seeds[0].seen)
    ax = plots.plot_accuracy_matrix(seeds, last=stage)
    until = [_until(r, stage) for r in seeds]
    text = (
        f"Accuracy matrix of {_name(seeds)} {_after(seeds[0], stage)}, {_seeds(seeds)}: the average accuracy"
        f" in the last row is {_said([r.average() for r in until])}"
    )
    if stage:
        text += (
            "; forgetting since each task's best is"
            f" {_said([r.forgetting() for r in until], 'percentage points')}"
        )
    return View(ax, text + ".")


def forgetting_view(results, task=0):
    """Accuracy on one task (from 0) over the stages that follow, a line a method; best and last in words."""
    groups = plots.grouped(results)
    ax = plots.plot_task(groups, task)
    said = []
    for method, seeds in groups.items():
        a = np.mean([r.accuracy()[:, task] for r in seeds], axis=0)
        a = 100 * a[~np.isnan(a)]
        said.append(
            f"{plots.style(method)['label']} {a.max():.1f} at best, {a[-1]:.1f} at the end"
            if len(a) > 1
            else f"{plots.style(method)['label']} {a[-1]:.1f}"
        )
    return View(
        ax,
        f"Accuracy on task {task + 1} in percent over the tasks learned, means over seeds:"
        f" {'; '.join(said)}.",
    )


def images_view(images, which=0, columns=8):
    """Samples of one superclass of an ImageSet, a row a class; without superclasses, of ten classes."""
    blocks = _blocks(images)
    title, classes = blocks[which % len(blocks)]
    labels = np.asarray(images.labels)
    picked = [np.flatnonzero(labels == k)[:columns] for k in classes]
    picked = [(k, p) for k, p in zip(classes, picked) if len(p)]
    if not picked:
        raise ExploreError(f"this set has no images of {title}")
    columns = min(len(p) for _, p in picked)
    pixels = np.asarray(images.images)[np.concatenate([p[:columns] for _, p in picked])]
    names = [images.names[k].rpartition("/")[2] for k, _ in picked]
    ax = plots.plot_images(pixels, columns=columns, rows=names)
    ax.set_title(f"{images.name}: {title}", fontsize=11)
    return View(
        ax,
        f"{len(pixels)} sample images of the set {images.name}, {title}: {columns} each of"
        f" {', '.join(names)}.",
    )


def _blocks(images):
    """[(title, classes)]: the superclasses, or tens of classes."""
    if images.groups is not None:
        return [(g, [k for k, h in enumerate(images.groups) if h == g]) for g in dict.fromkeys(images.groups)]
    tens = [list(range(n, min(n + 10, len(images.names)))) for n in range(0, len(images.names), 10)]
    return [(f"classes {images.names[t[0]]} to {images.names[t[-1]]}", t) for t in tens]


def _chosen(results, seed):
    groups = plots.grouped(results)
    if len(groups) > 1:
        raise ExploreError(
            f"this view shows one method, not {len(groups)} ({', '.join(groups)}): give the results of one"
        )
    seeds = next(iter(groups.values()))
    if seed is None:
        return seeds
    found = [r for r in seeds if r.about.get("seed") == seed]
    if not found:
        raise ExploreError(
            f"there is no seed {seed}: these results have the seeds"
            f" {', '.join(str(r.about['seed']) for r in seeds)}"
        )
    return found


def _until(result, stage):
    """A result as it would be had learning ended after this stage."""
    tasks = int((np.cumsum(result.sizes) <= result.seen[stage]).sum())
    there = result.labels < result.seen[stage]
    cut = {
        a: getattr(result, a)[: stage + 1]
        for a in ("seen", "learn_seconds", "test_seconds", "drawn", "parameters")
    }
    return dataclasses.replace(
        result,
        sizes=result.sizes[:tasks],
        labels=result.labels[there],
        trace={},
        kept={},
        predictions=result.predictions[: stage + 1, there],
        rank=result.rank[: stage + 1, there],
        within=result.within[: stage + 2, there],
        **cut,
    )


def _said(values, unit="%"):
    """A mean with the kind of its interval, in a sentence."""
    i = interval(values)
    if i.n < 2:
        return f"{100 * i.mean:.1f} {unit}"
    return f"{100 * i.mean:.1f} {unit} (± {100 * i.half:.1f}, {i.kind}, n = {i.n})"


def _name(seeds):
    return plots.style(seeds[0].about.get("method", "learner"))["label"]


def _after(result, stage):
    return "after all tasks at once" if len(result.seen) == 1 else f"after task {stage + 1} of {result.tasks}"


def _seeds(seeds):
    return f"{len(seeds)} seeds together" if len(seeds) > 1 else f"seed {seeds[0].about.get('seed', '?')}"


# ---- views of sparse networks

def connections_view(results, task=0, epoch=-1, layer=0, seed=None):
    """The connections of one task (from 0) in one layer, of one seed: the first recorded one by default.

    epoch: 0 at allocation, -1 when the task is learned.
    """
    result = _masked(results, seed)
    ax, text = _connections(result, task, epoch, layer)
    plots.stamp(ax, result)
    return View(ax, text)


def input_map_view(results, task=0, epoch=-1, seed=None, shape=None, names=None):
    """How many first-layer connections of a task (from 0) leave each pixel, of one seed.

    shape: (C, H, W) of the images; by default square, with one channel or three.   names: of the classes of
    the task, in place of those of the result.
    """
    result = _masked(results, seed)
    ax, text = _input_map(result, task, epoch, shape or _pixels(result, task, epoch), names)
    plots.stamp(ax, result)
    return View(ax, text)


def sparse_view(results, task=0, epoch=-1, layer=0, seed=None):
    """`connections_view` and `input_map_view` side by side; without the map where inputs are not pixels."""
    result = _masked(results, seed)
    shape = _pixels(result, task, epoch, strict=False)
    figure, axes = plt.subplots(1, 2 if shape else 1, figsize=(10.5 if shape else 6.5, 4.4), squeeze=False,
                                layout="constrained", width_ratios=(1.5, 1) if shape else None)
    ax, text = _connections(result, task, epoch, layer, axes[0, 0])
    if shape:
        text += " " + _input_map(result, task, epoch, shape, None, axes[0, 1])[1]
    plots.stamp(figure, result)
    return View(ax, text)


def _masked(results, seed):
    """One Result: of the seed asked for, else the first whose connections are recorded."""
    seeds = _chosen(results, seed)
    return next((r for r in seeds if "masks" in r.trace), seeds[0])


def _connections(result, task, epoch, layer, ax=None):
    """Draw the connection matrix: (axes, text)."""
    mask = masks.block(result, task, layer, epoch)[0]
    between, when = _between(layer, masks.layers(result)[-1]), _when(result, task, epoch)
    ax = plots.plot_connections(mask, title=f"{_name([result])}, task {task + 1}, {when}\n{between}", ax=ax)
    some, share = masks.used(mask), masks.busiest_share(mask)
    busy = f"; the 20 busiest hold {100 * share:.0f} % of the connections" if some > 20 else ""
    return ax, (
        f"Connection matrix of {_name([result])}, {_seeds([result])}, task {task + 1}, {between}, {when}:"
        f" {mask.sum():,} of {mask.size:,} places between {mask.shape[1]:,} source and {len(mask):,} target"
        f" neurons are taken; target neurons with any connection: {some} of {len(mask)}{busy}."
    )


def _input_map(result, task, epoch, shape, names, ax=None):
    """Draw the map of pixels, on one scale for all epochs of the task: (axes, text)."""
    counts = masks.input_map(result, task, shape, epoch)
    most = max(masks.input_map(result, task, shape, e).max() for e in masks.epochs(result, task))
    end = int(np.cumsum(result.sizes)[task])
    names = [str(n) for n in names or result.names[end - result.sizes[task]:end]]
    names, when = f"classes {', '.join(names)}", _when(result, task, epoch)
    short = names if len(names) <= 32 else f"{result.sizes[task]} classes"
    title = f"{_name([result])}, task {task + 1}, {when}\ninput, {short}"
    ax = plots.plot_input_map(counts, vmax=most, title=title, ax=ax)
    row, column = np.unravel_index(counts.argmax(), counts.shape)
    return ax, (
        f"Map of the first-layer connections of {_name([result])}, {_seeds([result])}, task {task + 1}"
        f" ({names}), {when}: {counts.sum():,} connections, {counts.mean():.1f} a pixel on average; the"
        f" busiest pixel, in row {row + 1} and column {column + 1}, has {counts.max()}."
    )


def _pixels(result, task, epoch, strict=True):
    """(C, H, W) of square images with as many values as the first layer has sources."""
    count = len(masks.block(result, task, 0, epoch)[2])
    for channels in (1, 3):
        side = math.isqrt(count // channels)
        if side > 1 and channels * side * side == count:
            return channels, side, side
    if strict:
        raise ExploreError(
            f"the first layer has {count} sources, which are no square image: give shape=(C, H, W), where"
            " they are pixels"
        )
    return None


def _between(layer, last):
    """The neurons that a layer connects, in words."""
    source = "input" if layer == 0 else f"hidden layer {layer}"
    return f"{source} to {'output' if layer == last else f'hidden layer {layer + 1}'}"


def _when(result, task, epoch):
    if epoch == 0:
        return "at allocation"
    return f"after epoch {masks.epochs(result, task)[-1] if epoch == -1 else epoch}"


# ---- views of recall

def recall_view(learner, x, y, step=-1, image=0, names=None):
    """What a learner (ARM or ADI) recalls for the batch x (B, C, H, W), y (B,), after some of its steps.

    step: of the descent, 0 before the first, negative from the end.   image: of those recalled, from 0.
    names: of the classes. Above the images as they are now and as they began; below both networks' outputs
    for one image, and how the terms of the objective have changed. Nothing is learned, and the random
    numbers of others stay as they are.
    """
    return _recall(_remembered(learner, x, y), step, image, names)


def _remembered(learner, x, y):
    """What `learner.remember` gives for a batch, as arrays, with the steps and outputs of the descent."""
    import torch
    with torch.random.fork_rng([x.device] if x.is_cuda else []):
        torch.manual_seed(0)                            # the same images whenever this is asked
        found = learner.remember(x, y)
    found = {name: None if part is None else part.detach().cpu().numpy()
             for name, part in found._asdict().items()}
    scores = found["scores"] - found["scores"].max(axis=-1, keepdims=True)                  # (S, 2, n, K)
    outputs = np.exp(scores) / np.exp(scores).sum(axis=-1, keepdims=True)
    config = dataclasses.asdict(learner.config)
    values = dict(zip(plots.TERMS, found["values"].T, strict=True))
    return found | {"outputs": outputs, "terms": plots.contributions(values, config),
                    "name": plots.style(config["recall"])["label"]}


def _recall(found, step, image, names):
    """The View of a step of what `_remembered` gave."""
    last, count = len(found["outputs"]), len(found["start"])
    if not -last - 1 <= step <= last:
        raise ExploreError(f"the descent has {last} steps: there is no step {step}")
    if not 0 <= image < count:
        raise ExploreError(f"{count} images are recalled, numbered from 0: there is no image {image}")
    step %= last + 1
    names = [str(n) for n in (range(found["answers"].shape[1]) if names is None else names)]
    outputs = {"old network": found["answers"][image]}
    if step < last:
        outputs = dict(zip(("old network", "new network"), found["outputs"][step, :, image]))
    answers = found["answers"] if step == last else found["outputs"][step, 0]               # (n, K)
    figure = plt.figure(figsize=(11, 6.6), layout="constrained")
    grid = figure.add_gridspec(2, 2, height_ratios=(1, 1.1), width_ratios=(1, 1))
    above = figure.add_subplot(grid[0, :])
    plots.plot_pairs(found["steps"][step], found["start"], answers, found["origins"], found["counts"],
                     names=names, ax=above)
    above.set_title(f"{found['name']}, {step} of {last} steps of the descent done", fontsize=11)
    above.texts[image].set(weight="bold", color="#D55E00")
    bars = plots.plot_outputs(outputs, names=names, ax=figure.add_subplot(grid[1, 0]))
    bars.set_xlabel(f"class of image {image + 1}", color="#D55E00")
    plots.plot_terms(found["terms"], at=step, ax=figure.add_subplot(grid[1, 1]))
    return View(above, _about_recall(found, step, image, names, outputs))


def _about_recall(found, step, image, names, outputs):
    """What `_recall` shows, in words."""
    origin, pixels = found["origins"][image], found["steps"][step][image]
    said = " and ".join(f"{names[p.argmax()]} to the {network} ({100 * p.max():.0f} %)"
                        for network, p in outputs.items())
    total = sum(found["terms"].values())
    change = f" and is {total[step]:.2f} now" if 0 < step < len(total) else ""
    return (
        f"Recall of {found['name']} after {step} of {len(total)} steps, {len(found['start'])} images: image"
        f" {image + 1}, which began as {'noise' if origin < 0 else names[origin]}, is {said}; its pixels"
        f" range from {pixels.min():.1f} to {pixels.max():.1f}. The objective was {total[0]:.2f} at the start"
        f"{change}."
    )


# ---- explorers: sliders around the views

def confusion_explorer(results):
    """A slider over the learning stages, and choices of method and seed, around `confusion_view`."""
    groups = plots.grouped(results)

    def view(method, stage, seed):
        seeds = groups[method]
        return confusion_view(seeds, min(stage, len(seeds[0].seen)) - 1, seed)

    every = sorted(set.intersection(*({r.about.get("seed") for r in seeds} for seeds in groups.values())))
    return _explorer(
        view,
        stage=_slider("after task", _stages(groups)),
        method=_choice("method", _labels(groups)),
        seed=_choice("seed", [("all", None), *((str(s), s) for s in every)]),
    )


def matrix_explorer(results):
    """A slider over the learning stages and a choice of method around `matrix_view`."""
    groups = plots.grouped(results)

    def view(method, stage):
        return matrix_view(groups[method], min(stage, len(groups[method][0].seen)) - 1)

    return _explorer(
        view, stage=_slider("after task", _stages(groups)), method=_choice("method", _labels(groups))
    )


def forgetting_explorer(results):
    """A slider over the tasks around `forgetting_view`."""
    groups = plots.grouped(results)
    return _explorer(lambda task: forgetting_view(groups, task - 1),
                     task=_slider("task", next(iter(groups.values()))[0].tasks))


def images_explorer(images, columns=8):
    """A slider over the superclasses of an ImageSet (or ten classes at a time) around `images_view`."""
    return _explorer(
        lambda which: images_view(images, which - 1, columns),
        which=_slider("family" if images.groups is not None else "classes", len(_blocks(images))),
    )


def sparse_explorer(results):
    """Sliders over tasks and epochs, and choices of layer, method and seed, around `sparse_view`."""
    groups = {}
    for method, seeds in plots.grouped(results).items():
        groups[method] = [r for r in seeds if "masks" in r.trace]
        if not groups[method]:
            raise ExploreError(
                f"no connections are recorded for {method}: give results of sparse methods with the trace"
                " table 'masks'"
            )
    every = [r for seeds in groups.values() for r in seeds]
    places, layers = _common(map(masks.epochs, every)), _common(map(masks.layers, every))
    shared = _common([r.about.get("seed") for r in seeds] for seeds in groups.values())
    return _explorer(
        lambda task, epoch, layer, method, seed: sparse_view(groups[method], task - 1, epoch, layer, seed),
        task=_slider("task", min(r.tasks for r in every)),
        epoch=_places("epoch", [("at allocation" if e == 0 else str(e), e) for e in places]),
        layer=_choice("layer", [(_between(n, layers[-1]), n) for n in layers]),
        method=_choice("method", _labels(groups)),
        seed=_choice("seed", [(str(s), s) for s in shared] or [("first", None)]),
    )


def recall_explorer(learner, x, y, names=None):
    """Sliders over the steps of the descent and over the images around `recall_view`; recalled once."""
    found = _remembered(learner, x, y)
    return _explorer(lambda step, image: _recall(found, step, image - 1, names),
                     step=_slider("steps done", len(found["outputs"]), first=0),
                     image=_slider("image", len(found["start"])))


def _common(lists):
    return sorted(set.intersection(*map(set, lists)))


def _stages(groups):
    return max(len(seeds[0].seen) for seeds in groups.values())


def _labels(groups):
    return [(plots.style(method)["label"], method) for method in groups]


def _slider(name, last, first=1):
    from ipywidgets import IntSlider
    return IntSlider(value=first, min=first, max=last, description=name, continuous_update=False,
                     disabled=last == first)


def _places(name, options):
    """A slider over what is there, at its end."""
    from ipywidgets import SelectionSlider
    return SelectionSlider(options=options, value=options[-1][1], description=name, continuous_update=False)


def _choice(name, options):
    from ipywidgets import Dropdown
    return Dropdown(options=options, value=options[0][1], description=name)


def _explorer(view, **controls):
    """Widgets that call view(**values) whenever one of them changes; the picture is HTML with its text."""
    from ipywidgets import HTML, HBox, Layout, VBox
    screen, drawn = HTML(), {}

    def draw(_=None):
        place = tuple((name, c.value) for name, c in controls.items())
        if place not in drawn:
            drawn[place] = _page(view(**dict(place)))
        screen.value = drawn[place]

    for control in controls.values():
        control.observe(draw, names="value")
    draw()
    shown = [c for c in controls.values() if len(getattr(c, "options", (1, 2))) > 1]
    return VBox([HBox(shown, layout=Layout(flex_flow="row wrap")), screen])


def _page(view):
    """A View as HTML; the figure is closed."""
    image, width, height = _png(view.axes.figure)
    plt.close(view.axes.figure)
    text = html.escape(view.text)
    return (
        f'<img alt="{text}" width="{width}" height="{height}" style="max-width: none"'
        f' src="data:image/png;base64,{base64.b64encode(image).decode()}"><p style="max-width: 48em;'
        f' line-height: 1.4">{text}</p>'
    )
