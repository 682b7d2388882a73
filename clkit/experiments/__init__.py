"""Experiments: their streams and settings, how they run, and where their results come from."""

# ruff: noqa: F401
from clkit.experiments.benchmark import PresetError, own_benchmark, stream, stream_of
from clkit.experiments.experiment import Experiment, config_class, exact_experiment, experiment, names
from clkit.experiments.load import check_record, load_or_run, load_record, load_record_of, on_record
from clkit.experiments.places import REPO_ROOT, runs_root
from clkit.experiments.runner import (
    THREADS,
    begin,
    past_of,
    run_experiment,
    run_folder,
    run_seed,
    run_seed_of,
)
from clkit.papers import PRESETS, SEEDS
