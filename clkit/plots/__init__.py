"""Plots of results: ``plot_x(results, ..., ax=None) -> Axes``, all importable from here.

Each function takes a Result, a list of Results (seeds of one method) or {method: seeds}, draws on `ax` (or
on a new figure if it is None) and returns the Axes. The functions load, save and show nothing, and leave the
global style alone. A figure made here carries a stamp (benchmark, data, preset, seeds, versions); on your own
axes, call `stamp` once when the figure is complete. Shares are in percent, and tasks are numbered from 1.
With several seeds, lines and bars are means, and each interval states its kind and n.
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
from clkit.plots.dgm import (
    CHOSEN,
    disc_space,
    drift,
    mask_course,
    plot_disc,
    plot_epochs,
    plot_generated,
    plot_mask_course,
    plot_neurons,
    plot_reuse,
    plot_sample_course,
    plot_samples,
    plot_two_stages,
    plot_weights,
    recognised,
    recognised_after,
    reuse,
    unchanged,
    weights,
)
from clkit.plots.features import forgetting_course, plot_drift, plot_forgetting_course, plot_stages
from clkit.plots.frame import PlotError, grouped, kind, memory_of, provenance, stamp, warning
from clkit.plots.growth import (
    beside_weights,
    kinds_kept,
    plot_budget,
    plot_formats,
    plot_kept,
    plot_kept_over_tasks,
    plot_parameters,
    plot_parts,
    plot_shares,
    said_bytes,
)
from clkit.plots.images import plot_images
from clkit.plots.inside import plot_layers, plot_map, plot_similarity, plot_similarity_course, similarity
from clkit.plots.mfgr import (
    coordinates,
    course,
    fine,
    plot_by_class,
    plot_projections,
    plot_recording,
    recording,
)
from clkit.plots.online import plot_loss, plot_progress
from clkit.plots.schematic import plot_schematic
from clkit.plots.spacenet import plot_activations, plot_connections, plot_input_map
from clkit.plots.style import DIVERGING, SEQUENTIAL, plain, style
