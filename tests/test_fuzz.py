"""A fast part of tests/soak: values that cannot be meant, and commands that are disturbed."""

import math

import pytest

from clkit.experiments import places
from clkit.experiments.experiment import config_class
from clkit.methods import LEARNERS
from tests.soak import fuzz
from tests.soak.trials import KINDS, Trials

ONE_EACH = list({config_class(LEARNERS[m]): m for m in reversed(LEARNERS)}.values())


@pytest.mark.parametrize("method", ONE_EACH)
def test_no_value_of_a_setting_ends_in_an_error_of_another_kind(method):
    values = (0, 1, -1, 10**12, math.nan, math.inf, None, "", (), ("a",))
    found, failures = fuzz.of_fields([method], values=values, texts=("1e999", "('a',)", "none"))
    assert failures == [] and found["refused"] > found["accepted"] > 0


@pytest.mark.parametrize("command", fuzz.OPTIONS, ids=" ".join)
def test_no_option_of_the_command_line_ends_in_a_traceback(command, tmp_path, monkeypatch):
    for name in ("CLKIT_RUNS", "CLKIT_DATA"):
        monkeypatch.setenv(name, str(tmp_path))
    monkeypatch.setattr(places, "RECORDS", tmp_path)
    monkeypatch.chdir(tmp_path)
    texts = ("", "x", "-1", "1e999", "\udcff", "(" * 500) if "00" not in command else ("", "\0", "\udcff")
    found, failures = fuzz.of_options(texts, {command: fuzz.OPTIONS[command]})
    assert failures == [] and (found["refused"] or command in [("doctor",), ()])


@pytest.fixture(scope="module")
def trials(tmp_path_factory):
    return Trials(tmp_path_factory.mktemp("trials"), seed=0)


@pytest.mark.parametrize("kind", [k for k in KINDS if not k.startswith("jobs")])
def test_a_disturbed_command_goes_on(kind, trials):
    assert trials.trial(kind)
