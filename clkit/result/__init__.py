"""Results of runs: predictions are stored, every score is derived from them.

A ``Result`` is one seed of one experiment. It stores the learner's prediction for each test image after each
learning stage; accuracy, forgetting, transfer, confusion and the rest are computed from these, so a new
metric never needs a new run. Several seeds are a plain list of results, saved together as one *record*: a
readable JSON file and an npz file of arrays. Nothing here imports torch.

Notation: T tasks, R learning stages (R = T, except for joint training, which has one stage), K classes, N
test images. Classes are numbered in order of arrival. All scores are fractions in [0, 1]; NaN marks undefined
values.
"""

# ruff: noqa: F401
from clkit.result.epochs import by_epoch, chosen, chosen_after
from clkit.result.interval import Interval, interval
from clkit.result.record import (
    FORMAT,
    PART,
    check_replaces,
    check_summary,
    load,
    pack_trace,
    save,
    summary,
    unpack_trace,
    write_atomically,
)
from clkit.result.result import Result, ResultError, checked
