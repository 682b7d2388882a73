"""Bar and dot plots: scores of methods and variants, memory, sizes, kinds of answers, outputs."""

import numpy as np
from matplotlib.colors import to_rgba
from matplotlib.patches import Patch

from clkit.papers.palette import BLUE, DASHED, GREEN, GREY, MEMORY_KINDS, ORANGE, PURPLE, WINE
from clkit.plots import frame
from clkit.plots.frame import PlotError
from clkit.plots.style import SMALL, TICK, plain
from clkit.plots.style import drawn_style as style
from clkit.result import interval

ABOVE = {"loc": "lower center", "bbox_to_anchor": (0.5, 1.0)}  # a legend


def plot_forgetting(results, *, ax=None):
    """Forgetting (Result.forgetting) in points: one bar per method, mean and interval; one dot per seed.

    Methods with one stage are omitted, because forgetting is undefined for them.
    """
    groups = frame.several_stages(results)
    if not groups:
        raise PlotError("forgetting needs a method with two learning stages or more")
    ax, made = frame.axes(ax, (1.8 + 1.0 * len(groups), 3.6))
    for n, (method, seeds) in enumerate(groups.items()):
        _bar(ax, n, 0.7, [r.forgetting() for r in seeds], style(method)["color"])
    frame.method_ticks(ax, groups)
    frame.dress(ax, None, f"forgetting (percentage points)\nmean and {frame.kind(groups)}")
    _bar_limits(ax)
    return frame.finish(ax, made, groups)


def _bar(ax, at, width, values, color, hatch=None):
    """A bar with its interval, its value and one dot per seed; values: (n,) fractions."""
    values = 100 * np.asarray(values, dtype=float)
    i = interval(values)
    ax.bar(at, i.mean, width, **_fill(color, hatch, 0.25), linewidth=1, zorder=2)
    top = max(i.mean, 0)
    if i.n > 1:
        ax.errorbar(at, i.mean, i.half, color="black", capsize=4, linewidth=1.2, zorder=4)
        spread = np.linspace(-0.2, 0.2, i.n) * width
        _dots(ax, at + spread, values, markersize=3, markeredgewidth=0.7)
        top = max(top, i.mean + i.half, values.max())
    _above(ax, f"{round(i.mean, 1) + 0.0:.1f}", at, top, 3, TICK)  # never "-0.0"


def _fill(color, hatch, share):
    """Colours of a bar; a hatched bar is filled with opacity `share`."""
    face = color if hatch is None else to_rgba(color, share)
    return {"color": face, "edgecolor": color, "hatch": hatch}


def _dots(ax, x, y, **look):
    """One open dot per seed."""
    ax.plot(x, y, "o", zorder=3, **{"color": "white", "markeredgecolor": "black"} | look)


def _above(ax, text, x, y, points, size):
    place = {"xytext": (0, points), "textcoords": "offset points", "ha": "center", "va": "bottom"}
    ax.annotate(text, (x, y), fontsize=size, **place)


def _key(ax, plain, hatched, share):
    """A legend above the axes for plain and hatched bars; share: opacity of the hatched ones."""
    marked = Patch(facecolor=to_rgba(GREY, share), edgecolor=GREY, hatch="///", label=hatched)
    handles = [Patch(facecolor=GREY, edgecolor=GREY, label=plain), marked]
    frame.legend(ax, handles=handles, **ABOVE, ncols=2)


def _bar_limits(ax, most=None):
    low, high = ax.get_ylim()
    ax.set_ylim(min(low, 0), most or high * 1.06)
    if low < 0:
        ax.axhline(0, color="black", linewidth=0.8)


def plot_scenarios(results, *, ax=None):
    """Final average accuracy of the same weights, class-incremental (plain) and task-aware (hatched).

    Class-incremental: the network chooses among all classes; task-aware: among the classes of the image's
    own task. Means and intervals in percent; one dot per seed.
    """
    groups = frame.same_tasks(results)
    ax, made = frame.axes(ax, (2.2 + 1.15 * len(groups), 3.8))
    for n, (method, seeds) in enumerate(groups.items()):
        color = style(method)["color"]
        _bar(ax, n - 0.2, 0.36, [r.average() for r in seeds], color)
        _bar(ax, n + 0.2, 0.36, [r.task_aware_average() for r in seeds], color, hatch="///")
    frame.method_ticks(ax, groups)
    frame.dress(ax, None, f"average accuracy (%)\nmean and {frame.kind(groups)}")
    _bar_limits(ax, 109)
    ax.set_yticks(range(0, 101, 20))
    _key(ax, "class-incremental", "task-aware", 0.25)
    return frame.finish(ax, made, groups)


def plot_memory(results, stage=-1, *, ax=None):
    """Memory that each method (its first seed) keeps between tasks, in MB (10^6 bytes), stacked by kind."""
    groups = frame.grouped(results)
    ax, made = frame.axes(ax, (6.8, 1.5 + 0.42 * len(groups)))
    held = [frame.memory_of(seeds[0]) for seeds in groups.values()]
    found = dict.fromkeys(k for kinds in held for k in kinds)
    left = np.zeros(len(groups))
    for k in [k for k in MEMORY_KINDS if k in found] + [k for k in found if k not in MEMORY_KINDS]:
        sizes = np.array([kinds[k][stage] / 1e6 if k in kinds else 0.0 for kinds in held])
        look = {"color": MEMORY_KINDS.get(k, "#BBBBBB"), "edgecolor": "white", "linewidth": 0.8, "label": k}
        ax.barh(range(len(groups)), sizes, left=left, height=0.65, **look)
        left += sizes
    for n, total in enumerate(left):
        _beside(
            ax, f"{total:.2f}" if total < 10 else f"{total:.1f}" if total < 100 else f"{total:,.0f}", total, n
        )
    _rows(ax, [style(m)["label"] for m in groups])
    frame.dress(ax, "memory kept between tasks (MB)", None, grid="x")
    ax.set_xlim(0, left.max() * 1.15)
    frame.legend(ax, "kind")
    return frame.finish(ax, made, groups)


def _rows(ax, names):
    """Names of horizontal bars, the first on top."""
    ax.set_yticks(range(len(names)), names)
    ax.invert_yaxis()


def _beside(ax, text, x, y):
    """Text to the right of a bar that ends at x, y."""
    ax.annotate(text, (x, y), xytext=(4, 0), textcoords="offset points", va="center", fontsize=TICK)


def plot_errors(shares, *, ax=None):
    """Kinds of answers as stacked bars, in percent.

    shares: {bar: {kind of answer: share, or shares of the seeds}}, as clkit.analysis.confusion.answers
    returns them. The first kind, correct answers, is pale grey.
    """
    ax, made = frame.axes(ax, (6.8, 1.4 + 0.5 * len(shares)))
    kinds = list(dict.fromkeys(k for parts in shares.values() for k in parts))
    left = np.zeros(len(shares))
    for k, color in zip(kinds, ("#CFCFCF", ORANGE, BLUE, GREEN, WINE)):
        sizes = np.array([100 * np.mean(parts.get(k, 0.0)) for parts in shares.values()])
        look = {"height": 0.6, "color": color, "edgecolor": "white", "label": k}
        bars = ax.barh(range(len(shares)), sizes, left=left, **look)
        ink = "white" if color in (BLUE, WINE) else "black"
        said = [f"{s:.1f}" if s >= 8 else "" for s in sizes]
        ax.bar_label(bars, said, label_type="center", fontsize=TICK, color=ink)
        left += sizes
    _rows(ax, list(shares))
    ax.set_xlim(0, 100)
    frame.dress(ax, "share of the test images (%)", None, grid="x")
    frame.legend(ax, "answer", **({} if made else {**ABOVE, "ncols": len(kinds)}))
    return ax


def plot_sizes(results, sizes=None, *, ax=None):
    """How many numbers (not bytes) each method stores after the last task: one bar per method, log scale.

    sizes: {method: {"parameters": int, "extra": int}}, as clkit.analysis.masks.sizes returns them; by
    default the parameters of each method's first seed. Solid: parameters; hatched: everything else. A log
    scale shows ratios, so read the hatched part from the numbers beside the bar.
    """
    groups = frame.grouped(results)
    if sizes is None:
        sizes = {m: {"parameters": int(s[0].parameters[-1])} for m, s in groups.items()}
    if set(groups) - set(sizes):
        raise PlotError(f"`sizes` has no entry for {', '.join(sorted(set(groups) - set(sizes)))}: add it")
    parts = [(sizes[m]["parameters"], sizes[m].get("extra", 0)) for m in groups]
    if min(p for p, _ in parts) < 1 or min(e for _, e in parts) < 0:
        raise PlotError("sizes must have 1 parameter or more, for the log scale, and an extra of at least 0")
    ax, made = frame.axes(ax, (7.2, 1.7 + 0.42 * len(groups)))
    low = 10 ** np.floor(np.log10(min(p for p, _ in parts) / 1.5))
    for n, (method, (held, extra)) in enumerate(zip(groups, parts, strict=True)):
        color = style(method)["color"]
        ax.barh(n, held - low, left=low, height=0.65, color=color, edgecolor=color)
        if extra:
            ax.barh(n, extra, left=held, height=0.65, color=to_rgba(color, 0.2), edgecolor=color, hatch="///")
        _beside(ax, f"{held:,}" + (f" + {extra:,}" if extra else ""), held + extra, n)
    high = max(p + e for p, e in parts)
    ax.set_xscale("log")
    ax.set_xlim(low, high * (high / low) ** 0.4)
    _rows(ax, [style(m)["label"] for m in groups])
    ax.minorticks_off()
    frame.dress(ax, "numbers stored after the last task (log scale)", None, grid="x")
    if any(e for _, e in parts):
        _key(ax, "parameters", "stored in addition", 0.2)
    return frame.finish(ax, made, groups)


def plot_task_bars(results, *, legend=True, ax=None):
    """Accuracy in percent on each task after the last stage, and the average: one bar per method.

    Means and intervals; with several seeds, one dot per seed. A small 0 marks a bar that is invisible because
    its accuracy rounds to 0 %. Methods that share a colour differ in hatching.
    """
    groups = frame.same_tasks(results)
    tasks = frame.first(groups).tasks
    ax, made = frame.axes(ax, (min(10.0, 2.6 + (tasks + 1) * (0.3 + 0.17 * len(groups))), 3.8))
    at = np.append(np.arange(tasks), tasks + 0.25)  # (T + 1,)
    width, hatches = 0.82 / len(groups), _hatches(groups)
    for n, (method, seeds) in enumerate(groups.items()):
        rows = np.array([r.accuracy()[-1] for r in seeds])  # (n, T)
        rows = np.column_stack([rows, [r.average() for r in seeds]])  # (n, T + 1)
        _bar_row(ax, at + (n - (len(groups) - 1) / 2) * width, width, rows, style(method), hatches[method])
    ax.axvline(tasks - 0.375, color="#AAAAAA", linewidth=0.8, linestyle=":")
    ax.set_xticks(at, [*range(1, tasks + 1), "average"])
    ax.set_xlim(-0.55, at[-1] + 0.55)
    frame.dress(ax, "tested on task", f"accuracy after the last task (%)\n{frame.lines_title(groups)}")
    frame.percent_axis(ax)
    if legend:
        frame.legend(ax)
    return frame.finish(ax, made, groups)


def _hatches(groups):
    """{method: hatch}: None for the first method of a colour, a different hatch for each further one."""
    colors = [style(m)["color"] for m in groups]
    return {m: (None, "////", "....", "xxxx")[colors[:n].count(colors[n]) % 4] for n, m in enumerate(groups)}


def _bar_row(ax, at, width, rows, look, hatch):
    """The bars of one method at the positions `at` (X,); rows: (n, X) fractions."""
    mean, half = frame.intervals(rows)
    fill = _fill(look["color"], hatch, 0.2)
    ax.bar(at, mean, width * 0.92, zorder=2, linewidth=0.8, label=look["label"], **fill)
    if len(rows) > 1:
        ax.errorbar(at, mean, half, fmt="none", ecolor="black", capsize=2, linewidth=1, zorder=4)
        spread = np.linspace(-0.28, 0.28, len(rows))[:, None] * width
        _dots(ax, (at + spread).ravel(), 100 * rows.ravel(), markersize=2.2, markeredgewidth=0.5)
    for x in at[mean < 0.5]:
        _above(ax, "0", x, 0, 1, SMALL)


def plot_ablation(variants, *, baseline=None, score="accuracy", ax=None):
    """Final scores in percent of variants of one method: one dot with its interval per variant.

    variants: {label: list of scores (fractions, one per seed) or of Results}.   baseline: one of the labels,
    or such a list; its mean is drawn as a vertical line, its interval as a band.   score: "accuracy" (average
    over tasks) or "forgetting"; a variant with an undefined score has an empty row. Small open dots are
    seeds.
    """
    if score not in frame.FINALS:
        raise PlotError(f"unknown score {score!r}: use {' or '.join(frame.FINALS)}")
    groups = {label: frame.finals(label, values, score) for label, values in variants.items()}
    if not groups:
        raise PlotError("there are no variants to plot: give {label: list of accuracies or of Results}")
    name, values = (baseline, groups.get(baseline)) if isinstance(baseline, str) else ("baseline", baseline)
    if isinstance(baseline, str) and baseline not in groups:
        raise PlotError(f"the baseline '{baseline}' is not a variant: use one of {', '.join(groups)}")
    ax, made = frame.axes(ax, (6.8, 1.6 + 0.36 * len(groups)))
    if baseline is not None:
        i = interval(frame.finals(name, values, score))
        said = f"{name}: mean and interval, n = {i.n}" if i.n > 1 else f"{name}, n = 1"
        ax.axvline(100 * i.mean, color=GREY, linestyle=DASHED, linewidth=1.2, zorder=1, label=said)
        if i.n > 1:
            ax.axvspan(100 * (i.mean - i.half), 100 * (i.mean + i.half), color=GREY, alpha=0.2, linewidth=0)
    differ = len({len(values) for values in groups.values()}) > 1
    for n, values in enumerate(groups.values()):
        i = interval(values)
        if i.n > 1:
            look = {"markeredgecolor": BLUE, "markersize": 3.5, "markeredgewidth": 0.8, "alpha": 0.7}
            _dots(ax, 100 * values, np.full(i.n, n), **look)
            ax.errorbar(100 * i.mean, n, xerr=100 * i.half, color=BLUE, capsize=4, linewidth=1.4, zorder=3)
        ax.plot(100 * i.mean, n, "o", color=BLUE, markersize=7, zorder=4)
        said = "–" if np.isnan(i.mean) else f"{100 * i.mean:.1f}" + (f" (n = {i.n})" if differ else "")
        ax.annotate(said, (1.01, n), xycoords=("axes fraction", "data"), va="center", fontsize=TICK)
    ax.set_yticks(range(len(groups)), groups)
    ax.set_ylim(len(groups) - 0.5, -0.5)
    frame.dress(ax, f"{frame.FINALS[score][1]}\n{frame.lines_title(groups)}", None, grid="x")
    if baseline is not None:
        frame.legend(ax, **ABOVE)
    shown = [r for values in variants.values() for r in frame.results_among(values)]
    return frame.finish(ax, made and bool(shown), shown)


def plot_outputs(outputs, *, names=None, most=12, ax=None):
    """Class probabilities in percent, as grouped bars: one bar per class and network.

    outputs: {network: (K,) probabilities}.   names: of the classes.   most: with more than 20 classes, show
    this many, those with the highest bars.
    """
    values = 100 * np.array(list(outputs.values()), dtype=float)  # (N, K)
    if values.ndim != 2 or not values.size:
        raise PlotError("outputs must be {network: (K,) probabilities}, with one network or more")
    K = values.shape[1]
    classes = np.arange(K) if K <= 20 else np.sort(np.argsort(-values.max(axis=0), kind="stable")[:most])
    ax, _ = frame.axes(ax, (5.2, 3.2))
    width = 0.8 / len(values)
    looks = [(BLUE, None), (ORANGE, "////"), (GREEN, "...."), (PURPLE, "xxxx")]
    for n, (label, row) in enumerate(zip(outputs, values)):
        color, hatch = looks[n % len(looks)]
        at = np.arange(len(classes)) + (n - (len(values) - 1) / 2) * width
        ax.bar(at, row[classes], width, label=label, **_fill(color, hatch, 0.25))
    names = [str(name) for name in (range(K) if names is None else names)]
    shown = [plain(names[k]) for k in classes]
    ax.set_xticks(range(len(classes)), shown, rotation=90 if max(map(len, shown)) > 3 else 0)
    frame.dress(ax, "class", "probability (%)")
    frame.percent_axis(ax)
    frame.legend(ax, loc="lower left", bbox_to_anchor=(0, 1.0), ncols=len(values))
    return ax
