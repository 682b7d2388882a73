"""Plots of results: ``plot_x(results, ..., ax=None) -> Axes``, all of them under this one name.

Each function takes a Result, a list of Results (seeds of one method) or {method: seeds}, draws on `ax` (on
the axes of a figure of its own when None) and returns the Axes. Nothing is loaded, saved or shown, and no
global style is changed. A figure made here carries a stamp (benchmark, data, preset, seeds, versions); on
axes of your own, call `stamp` once when the figure is complete. Shares are drawn in percent; tasks are
counted from 1, as readers do; where there are several seeds, lines and bars are means and each interval says
its kind and n.
"""

# ruff: noqa: F401
from clkit.plots.accuracy import (
    plot_accuracy_matrix,
    plot_averages,
    plot_confusion,
    plot_newest,
    plot_sweep,
    plot_task,
    plot_tasks,
    plot_tradeoff,
)
from clkit.plots.arm import (
    TERMS,
    contributions,
    plot_gradients,
    plot_objective,
    plot_pairs,
    plot_recall_map,
    plot_recalled,
    plot_terms,
)
from clkit.plots.bars import (
    plot_ablation,
    plot_errors,
    plot_forgetting,
    plot_memory,
    plot_outputs,
    plot_scenarios,
    plot_sizes,
    plot_task_bars,
)
from clkit.plots.frame import PlotError, grouped, kind, provenance, stamp, warning
from clkit.plots.images import plot_images
from clkit.plots.online import plot_loss, plot_progress
from clkit.plots.spacenet import plot_activations, plot_connections, plot_input_map
from clkit.plots.style import DIVERGING, SEQUENTIAL, style
