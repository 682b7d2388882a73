"""Table 1 of GFR recomputed: bytes of stored images, of the network, and of generator and critic."""

from itertools import pairwise

import numpy as np

from clkit import plots
from clkit.figures.gfr import runs
from clkit.figures.picture import FigureSpec, panels
from clkit.papers.palette import BLUE, GREEN, ORANGE, VERMILLION
from clkit.papers.published import one

MIB = 2**20
EXEMPLARS = 20  # stored images of each class
DATA = {"cifar100": ("CIFAR-100", 100, 32), "imagenet100": ("ImageNet-Subset", 100, 256),
        "imagenet1000": ("ImageNet-1000", 1000, 256)}  # name, classes, side of a stored image  # fmt: skip


def linear(inputs, outputs, bias=True):
    return inputs * outputs + bias * outputs


def gan_parameters(classes, nz=200, hidden=512, features=512):
    """(G, D): numbers of G (z, one-hot class) and of the projection critic (section 4.1 and appendix D)."""
    generator = linear(nz + classes, hidden) + linear(hidden, hidden) + linear(hidden, features)
    critic = linear(features, hidden) + linear(hidden, hidden) + linear(hidden, 1)
    return generator, critic + linear(classes, hidden, bias=False)


def network_parameters(classes, large):
    """Of ResNet-18 with a head for these classes; large: its first convolution has 7x7 weights, not 3x3."""
    total = 3 * 64 * (49 if large else 9) + 2 * 64
    widths = (64, 64, 128, 256, 512)
    for inputs, width in pairwise(widths):
        first = 9 * inputs * width + 9 * width**2 + 4 * width
        shortcut = inputs * width + 2 * width if inputs != width else 0
        total += first + shortcut + 18 * width**2 + 4 * width
    return total + linear(512, classes)


def image_bytes(classes, side):
    """Of the stored images of some classes, a byte for each value."""
    return EXEMPLARS * classes * 3 * side**2


def said(method, metric, benchmark):
    """The printed number, in "Mb"."""
    return one(paper="gfr", table="Table 1", method=method, metric=metric, benchmark=benchmark)


def rows():
    """Rows of table 1: what is kept, printed and recomputed in MiB."""
    found = []
    for name, (label, classes, side) in DATA.items():
        large = side == 256
        net = 4 * network_parameters(classes, large) / MIB
        images, gan = image_bytes(classes, side) / MIB, 4 * sum(gan_parameters(classes)) / MIB
        for what, size, text in (
            ("stored images", images, said("exemplars", "memory of stored images", name).text),
            ("network", net, said("exemplars", "memory of the classifier", name).text),
            ("generator and critic", gan, said("gfr", "memory of the generator and the critic", "all").text),
        ):
            found.append({"data": label, "kept": what, "printed (Mb)": text, "recomputed (MiB)": size})
    return found


def table_1():
    """Memory beside the network, against the number of classes, with the printed numbers (table 1)."""
    figure, (left, right) = panels(11.6, 3.9, 2)
    classes = np.geomspace(10, 1000, 40)
    for side, color, line in ((32, BLUE, "-"), (256, BLUE, "--")):
        look = {"color": color, "linestyle": line, "label": f"20 images of each class, {side}x{side}"}
        left.plot(classes, [image_bytes(k, side) / MIB for k in classes], **look)
    gan = [4 * np.array(gan_parameters(round(k))) / MIB for k in classes]
    left.plot(classes, [sum(g) for g in gan], color=ORANGE, label="generator and critic")
    printed = said("gfr", "memory of the generator and the critic", "all")
    look = {"color": VERMILLION, "linestyle": ":", "label": f"the same as printed: {printed.text}, constant"}
    left.axhline(printed.value, **look)
    for name, (_, k, _) in DATA.items():
        images = said("exemplars", "memory of stored images", name)
        look = {
            "markerfacecolor": "none",
            "color": VERMILLION,
            "label": "printed" if name == "cifar100" else "_",
        }
        left.plot(k, images.value, "D", **look)
    left.set(xscale="log", yscale="log", xlabel="classes", ylabel="MiB beside the network")
    left.legend(frameon=False, fontsize=8, loc="upper left")
    parts = np.array(gan).T
    right.stackplot(classes, parts, labels=("generator", "critic"), colors=(ORANGE, GREEN), alpha=0.8)
    right.axhline(printed.value, **look | {"linestyle": ":", "label": "printed"})
    right.set(xlabel="classes", ylabel="MiB", xlim=(10, 1000), ylim=(0, None))
    right.legend(frameon=False, fontsize=8, loc="upper left")
    for ax in (left, right):
        ax.spines[["top", "right"]].set_visible(False)
    plots.stamp(figure, "counted, and the numbers of Table 1")
    ends = {k: 4 * sum(gan_parameters(k)) / MIB for k in (100, 1000)}
    return FigureSpec(
        figure,
        "Left: memory of 20 stored images a class, and of GFR's generator and critic, with the printed "
        f"numbers (diamonds). Right: generator and critic alone. The paper calls them constant, "
        f"{printed.text}; the one-hot class makes both grow.",
        f"Two panels against 10 to 1,000 classes. Generator and critic take {ends[100]:.2f} MiB with 100 "
        f"classes and {ends[1000]:.2f} with 1,000. Images take "
        + "; ".join(f"{image_bytes(k, s) / MIB:,.1f} MiB for {name}" for name, k, s in DATA.values())
        + ".",
        about={"printed": "Table 1"},
        title="Table 1 of the paper: memory",
    )


def kept():
    """What methods keep between tasks at the size of the records, by kind."""
    methods = (*runs.FROZEN, "gfr-gaussian", "gfr", "gfr-distill", "icarl-cnn", "lucir", "lwf-max", "ewc-max")
    shown, records, note = runs.half_first([runs.SHAPES], methods)
    [groups] = shown.values()
    tasks = next(iter(groups.values()))[0].tasks
    named = {runs.label_of(m): seeds for m, seeds in groups.items()}
    ax = plots.plot_kept(named, image_bytes=3 * 16 * 16)
    sizes = "; ".join(f"{runs.label_of(m)} {_beside(s[0]):.1f} kB" for m, s in groups.items())
    return FigureSpec(
        ax.figure,
        f"What methods keep between tasks. {note}",
        f"A row of marks for each method on a logarithmic axis of bytes, after {tasks} tasks. "
        f"Beside the weights: {sizes}.",
        records,
        title="Kept between tasks",
    )


def _beside(result):
    return sum(v[-1] for kind, v in result.memory_bytes.items() if kind != "weights") / 1e3


FIGURES = {"gfr-table1-memory": table_1, "gfr-kept": kept}
