"""tools/revise.py: what changes a fingerprint, what does not, and which results count as changed."""

import numpy as np
import pytest

from tools import revise

METHOD = "clkit.methods.base.one"
TREE = {
    "clkit/methods/base/one.py": '''
"""What it is."""

from clkit.blocks import nets
from clkit.data import Images
from clkit.result import save

RATE = 1


class One:
    """Learns."""

    def learn(self, x: int) -> None:
        return nets.loss(x, f"{x} of {RATE}")
''',
    "clkit/methods/base/two.py": "OTHER = 1\n",
    "clkit/blocks/__init__.py": "",
    "clkit/blocks/nets.py": "from .deeper import SCALE\n\ndef loss(x, y):\n    return x * SCALE\n",
    "clkit/blocks/deeper.py": "SCALE = 2\n",
    "clkit/blocks/unused.py": "A = 1\n",
    "clkit/data/__init__.py": "from clkit.data.images import Images\nfrom clkit.data.folders import Folder\n",
    "clkit/data/images.py": "class Images:\n    n = 1\n",
    "clkit/data/folders.py": "class Folder:\n    n = 1\n",
    "clkit/data/stream.py": "X = 1\n",
    "clkit/engine/__init__.py": "",
    "clkit/engine/run.py": "from clkit.engine.checkpoint import Folder\nLOOP = 1\n",
    "clkit/engine/checkpoint.py": "class Folder:\n    n = 1\n",
    "clkit/result/__init__.py": "def save():\n    pass\n",
}


@pytest.fixture
def mark(tmp_path):
    """mark(file, old, new): the fingerprint of the small tree after one replacement."""
    made = []

    def of(file=None, old="", new=""):
        root = tmp_path / str(len(made))
        made.append(root)
        for name, text in TREE.items():
            assert name != file or old in text
            (root / name).parent.mkdir(parents=True, exist_ok=True)
            (root / name).write_text(text.replace(old, new) if name == file else text)
        return revise.fingerprint(METHOD, root)

    return of


@pytest.mark.parametrize(
    "file, old, new",
    [
        ("clkit/methods/base/one.py", "What it is.", "What it is,\nand more."),
        ("clkit/methods/base/one.py", '    """Learns."""\n', ""),
        ("clkit/methods/base/one.py", "RATE = 1", "# why\nRATE = (\n    1\n)  # so"),
        ("clkit/methods/base/one.py", "x: int) -> None", "x)"),
        ("clkit/methods/base/one.py", 'f"{x} of {RATE}"', "f'{x} ' f'of {RATE}'"),
        ("clkit/methods/base/one.py", "nets.loss(x, f", "nets.loss(\n            x, f"),
        (
            "clkit/methods/base/one.py",
            "from clkit.blocks import nets\nfrom clkit.data import Images\n",
            "from clkit.data import Images\nfrom clkit.blocks import nets\n",
        ),
        ("clkit/methods/base/two.py", "OTHER = 1", "OTHER = 2"),
        ("clkit/blocks/unused.py", "A = 1", "A = 2"),
        ("clkit/data/folders.py", "n = 1", "n = 2"),
        ("clkit/engine/checkpoint.py", "n = 1", "n = 2"),
        ("clkit/result/__init__.py", "pass", "return 1"),
    ],
)
def test_what_leaves_a_fingerprint_as_it_is(mark, file, old, new):
    assert mark() == mark(file, old, new)


@pytest.mark.parametrize(
    "file, old, new",
    [
        ("clkit/methods/base/one.py", "RATE = 1", "RATE = 1.0"),
        ("clkit/methods/base/one.py", "{x} of", "{x} off"),
        ("clkit/blocks/nets.py", "x * SCALE", "x + SCALE"),
        ("clkit/blocks/deeper.py", "SCALE = 2", "SCALE = 3"),
        ("clkit/data/images.py", "n = 1", "n = 2"),
        ("clkit/data/stream.py", "X = 1", "X = 2"),
        ("clkit/engine/run.py", "LOOP = 1", "LOOP = 2"),
    ],
)
def test_what_changes_a_fingerprint(mark, file, old, new):
    assert mark() != mark(file, old, new)


def test_the_fingerprint_is_the_same_on_every_python_and_machine(mark):
    assert mark()[:16] == "9865b56a5d5d717a"


def test_arrays_are_compared_bit_for_bit(tmp_path):
    one, other = tmp_path / "a", tmp_path / "b"
    for folder, values in ((one, [1.0, np.nan]), (other, [1.0, np.nan])):
        folder.mkdir()
        np.savez(folder / "er_x.npz", rank=np.array(values))
    assert revise.differences(one, other) == []
    np.savez(other / "er_x.npz", rank=np.array([1.0, -0.0]), more=np.ones(1))
    np.savez(other / "er_y.npz", rank=np.ones(1))
    assert revise.differences(one, other) == ["er_x: more, rank", "er_y: runs on only one of the two"]
    np.savez(other / "er_x.npz", rank=np.array([1.0, np.nan], np.float32))
    assert revise.differences(one, other)[0] == "er_x: rank"


def test_a_changed_method_is_named_with_the_command(monkeypatch):
    now = revise.current()
    plain = {k: {"revision": v["revision"], "fingerprint": v["fingerprint"]} for k, v in now.items()}
    then = {k: v for k, v in plain.items() if k != "ER"} | {
        "ARM": plain["ARM"] | {"fingerprint": "0"},
        "Gone": {},
    }
    monkeypatch.setattr(revise, "stored", lambda root=None: then)
    assert revise.changed() == {
        "ARM": f"arm changed since revision {plain['ARM']['revision']}: run `python -m tools.revise arm`",
        "ER": "er has no revision yet: run `python -m tools.revise er`",
        "Gone": "Gone is no longer a method: remove it from clkit/methods/revisions.json",
    }
    assert revise.revise("ER") == (True, "ER: revision 1 is new")
    then["ARM"]["revision"] = 5
    fine, said = revise.revise("ARM")
    assert not fine and "is below 5" in said
