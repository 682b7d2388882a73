"""Explore results with sliders: views and the explorers around them, a file a family of methods.

confusion_explorer({"finetune": results, ...})          sliders around a plot
show.figure(confusion_view(results), id=..., ...)       the same picture in an ordinary cell
"""

# ruff: noqa: F401  (names for the notebooks)
from clkit.book.explore.arm import recall_explorer, recall_view
from clkit.book.explore.baselines import (
    confusion_explorer,
    confusion_view,
    forgetting_explorer,
    forgetting_view,
    images_explorer,
    images_view,
    matrix_explorer,
    matrix_view,
)
from clkit.book.explore.common import ExploreError
from clkit.book.explore.dgm import mask_explorer, mask_view, units_view
from clkit.book.explore.gfr import (
    feature_maps,
    features_explorer,
    features_view,
    similarity_explorer,
    similarity_view,
)
from clkit.book.explore.growth import budget_explorer, budget_view
from clkit.book.explore.inside import layer_explorer, layer_view
from clkit.book.explore.mfgr import classes_explorer, classes_view, generator_explorer, generator_view
from clkit.book.explore.spacenet import connections_view, input_map_view, sparse_explorer, sparse_view
