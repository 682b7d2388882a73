"""The key of a result, the revision of a learner, and whether a method's source matches its revision."""

import dataclasses
import json
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from clkit.engine import RunError, provenance
from clkit.engine.provenance import cpu_model, key_of, process_facts, record_key, revision_of, settings_of
from clkit.methods import LEARNERS
from clkit.methods.baselines import er, finetune
from tests.fakes import Online, small_stream
from tools import revise

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.parametrize(
    "name", sorted({learner.__name__ for learner in LEARNERS.values()} | revise.stored().keys())
)
def test_the_source_of_a_method_is_what_its_revision_was_set_for(name):
    said = revise.changed().get(name)
    assert said is None, said


def test_the_key_covers_learner_revision_settings_and_stream():
    about = small_stream().about()
    keys = [
        key_of(finetune.Finetune, finetune.Config(), about),
        key_of(finetune.Finetune, finetune.Config(epochs=3), about),
        key_of(er.ER, er.Config(), about),
        key_of(finetune.Finetune, finetune.Config(), small_stream(per_class=25).about()),
        key_of(finetune.Finetune, finetune.Config(), small_stream(sizes=(3, 3)).about()),
        record_key("Finetune", 99, {}, about),
    ]
    assert len(set(keys)) == len(keys) and all(len(k) == 16 and int(k, 16) >= 0 for k in keys)
    assert keys[0] == key_of(finetune.Finetune, finetune.Config(), json.loads(json.dumps(about)))
    assert keys[0] == record_key("Finetune", revision_of(finetune.Finetune), {}, about)


def test_a_key_stays_what_it_is():
    """A change in its computation would make every record stale."""
    assert (
        record_key("ER", 1, {"memory": 50, "hidden": (2, 3)}, {"data": "made", "order": (1, 0)})
        == "04b02252419cc3db"
    )


@dataclass(frozen=True)
class Config:
    """One field of each kind."""

    must: int
    rate: float = 0.1
    sizes: tuple = (1, 2)
    more: dict = field(default_factory=dict)
    none: int | None = None


def test_settings_are_what_differs_from_the_defaults():
    assert settings_of(Config(3)) == {"must": 3}
    assert settings_of(Config(3, sizes=[1, 2], rate=0.1)) == {"must": 3}
    assert settings_of(Config(3, 0.2, (1,), {"a": 1}, 0)) == {
        "must": 3,
        "rate": 0.2,
        "sizes": [1],
        "more": {"a": 1},
        "none": 0,
    }


def test_a_new_setting_with_a_neutral_default_costs_no_record():
    wider = dataclasses.make_dataclass("Config", [("extra", int, 1)], bases=(finetune.Config,), frozen=True)
    about = small_stream().about()
    assert key_of(finetune.Finetune, wider(epochs=3), about) == key_of(
        finetune.Finetune, finetune.Config(epochs=3), about
    )


def test_the_revision_of_a_learner_is_that_of_its_file_or_its_content(monkeypatch):
    assert revision_of(er.ER) == er.REVISION
    assert len(revision_of(Online)) == 64, "outside clkit the code itself counts"
    monkeypatch.setattr(provenance, "own_code", lambda *_, **__: None)
    assert revision_of(Online) is None and record_key("Online", None, {}, {}) is None
    monkeypatch.undo()
    monkeypatch.delattr(er, "REVISION")
    with pytest.raises(RunError, match="clkit.methods.baselines.er has no REVISION: write `REVISION = 1`"):
        revision_of(er.ER)


def test_facts_of_a_process():
    facts = process_facts()
    assert facts.keys() == set(provenance.PROCESS) and json.loads(json.dumps(facts)) == facts
    assert cpu_model() is None or cpu_model().strip()


def test_a_key_needs_no_torch():
    code = (
        "import sys; from clkit.engine.provenance import record_key; record_key('A', 1, {}, {}); "
        "print([m for m in ('torch', 'numpy') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
