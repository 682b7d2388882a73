"""Values that a Config refuses, by field type; and copies of networks whose weights are buffers."""

import json
import math
from dataclasses import dataclass
from typing import Literal, Optional

import numpy as np
import pytest
import torch
from torch import nn

from clkit.engine.learner import LearnerError, check_config, check_types, teacher


@dataclass(frozen=True)
class Config:
    word: Literal["left", "right"] = "left"
    three: Literal["a", "b", "c"] = "a"
    count: int = 3
    zero: int = 0
    few: int | None = None
    rate: float = 0.5
    weight: float = 0.0
    share: float = 1.0
    offset: float = -1.0
    sizes: tuple = (4, 5)
    several: tuple[int, ...] = (4,)
    means: tuple[float, ...] = (0.5,)
    either: tuple[int, ...] | float = 0.5
    maybe: Optional[Literal["x"]] = None  # noqa: UP045
    flag: bool = False
    name: str = "mlp"
    mixed: tuple | float = 0.5

    def __post_init__(self):
        check_config(self, above_0="rate", from_0="zero", up_to_1="share", signed="offset", own="mixed")


@pytest.mark.parametrize(
    "right",
    [
        {},
        {"word": "right"},
        {"count": 1},
        {"zero": 0},
        {"few": 1},
        {"rate": 1},
        {"rate": 5e-324},
        {"share": 0.0},
        {"offset": -1e9},
        {"sizes": ()},
        {"flag": True},
        {"mixed": (0,)},
        {"mixed": -1.0},
        {"either": (1, 2)},
        {"either": 0},
        {"means": (0, 0.5)},
        {"maybe": "x"},
    ],
)
def test_settings_that_can_work(right):
    Config(**right)


@pytest.mark.parametrize(
    "wrong, message",
    [
        ({"word": "up"}, "word must be 'left' or 'right', not 'up'"),
        ({"three": None}, "three must be 'a', 'b' or 'c', not None"),
        ({"count": 0}, "count must be a whole number of at least 1, not 0"),
        ({"count": 2.0}, "count must be a whole number of at least 1, not 2.0"),
        ({"count": True}, "count must be a whole number of at least 1, not True"),
        ({"count": None}, "count must be a whole number of at least 1, not None"),
        ({"zero": -1}, "zero must be a whole number of at least 0, not -1"),
        ({"few": 0}, "few must be a whole number of at least 1 or None, not 0"),
        ({"count": 10**12}, "count must be at most 1,000,000,000 in absolute value"),
        ({"sizes": (4, 10**12)}, "sizes must be at most 1,000,000,000 in absolute value"),
        ({"offset": -(10**12)}, "offset must be at most 1,000,000,000 in absolute value"),
        ({"rate": 10**5000}, "rate must be at most 1,000,000,000 in absolute value"),
        ({"rate": 0.0}, "rate must be a finite number above 0, not 0.0"),
        ({"rate": math.nan}, "rate must be a finite number above 0, not nan"),
        ({"rate": "fast"}, "rate must be a finite number above 0, not 'fast'"),
        ({"weight": -1.0}, "weight must be a finite number of at least 0, not -1.0"),
        ({"weight": math.inf}, "weight must be a finite number of at least 0, not inf"),
        ({"share": 1.5}, "share must be a finite number of at least 0 and at most 1, not 1.5"),
        ({"offset": math.inf}, "offset must be a finite number, not inf"),
        ({"sizes": (4, 0)}, r"sizes must be a tuple of whole numbers of at least 1, not (4, 0)"),
        ({"sizes": [4]}, r"sizes must be a tuple of whole numbers of at least 1, not [4]"),
        ({"several": ("a",)}, "several must be a tuple of whole numbers of at least 1, not ('a',)"),
        ({"means": (math.inf,)}, "means must be a tuple of finite numbers of at least 0, not (inf,)"),
        ({"means": (None,)}, "means must be a tuple of finite numbers of at least 0, not (None,)"),
        (
            {"either": "a"},
            "either must be a tuple of whole numbers of at least 1 or a finite number of at least 0, not 'a'",
        ),
        ({"maybe": "y"}, "maybe must be 'x' or None, not 'y'"),
        ({"mixed": math.nan}, "mixed must be a tuple of whole numbers or a finite number, not nan"),
        ({"mixed": "a"}, "mixed must be a tuple of whole numbers or a finite number, not 'a'"),
        ({"flag": 1}, "flag must be True or False, not 1"),
        ({"flag": "no"}, "flag must be True or False, not 'no'"),
        ({"name": 3}, "name must be a text, not 3"),
    ],
)
def test_settings_that_cannot_work_are_refused_in_one_sentence(wrong, message):
    with pytest.raises(LearnerError) as error:
        Config(**wrong)
    assert str(error.value) == message


@pytest.mark.parametrize(
    "given, kept",
    [
        ({"count": np.int64(4)}, 4),
        ({"rate": np.float64(0.5)}, 0.5),
        ({"rate": np.int32(2)}, 2),
        ({"flag": np.bool_(True)}, True),
        ({"sizes": (np.int64(4), 5)}, (4, 5)),
        ({"name": np.str_("mlp")}, "mlp"),
    ],
)
def test_numpy_s_numbers_become_python_s(given, kept):
    [name] = given
    value = getattr(Config(**given), name)
    assert value == kept and type(value) is type(kept) and json.dumps(value)


def test_what_a_config_does_not_check_is_checked_by_type():
    @dataclass(frozen=True)
    class Own:
        count: int = 0
        rate: float = -1.0
        more: dict = None
        many: list[int] = None
        anything: "Nowhere" = None  # noqa: F821

    check_types(Own(count="many"))  # its types cannot be found
    Own.__annotations__.pop("anything")
    check_types(Own(count=-3))
    check_types(Own(more={}, many=[1]))
    for wrong, message in (
        ({"count": "many"}, "count must be a whole number, not 'many'"),
        ({"rate": math.nan}, "rate must be a finite number, not nan"),
        ({"more": 3}, "more must be of the type dict, not 3"),
        ({"many": "x"}, "many must be of the type list, not 'x'"),
    ):
        with pytest.raises(LearnerError, match=message):
            check_types(Own(**wrong))


class Pair(nn.Module):
    """Weights, a running mean, and a buffer that is not part of the state."""

    def __init__(self):
        super().__init__()
        self.linear, self.norm = nn.Linear(3, 2, bias=False), nn.BatchNorm1d(2)
        self.register_buffer("scratch", torch.ones(1, device="cpu"), persistent=False)

    def forward(self, x):
        return self.norm(self.linear(x)) * self.scratch


@pytest.mark.parametrize("persistent", [True, False])
def test_a_teacher_is_a_copy_without_parameters(persistent):
    net, x = Pair(), torch.rand(4, 3, device="cpu")
    net(x)
    copy = teacher(net, persistent)
    assert not list(copy.parameters()) and torch.equal(copy.eval()(x), net.eval()(x))
    assert not copy(x).requires_grad
    assert copy.state_dict().keys() == (net.state_dict().keys() if persistent else set())
    with torch.no_grad():
        net.linear.weight.zero_()
    assert copy.linear.weight.any() and next(iter(net.parameters())) is net.linear.weight
    assert copy.double()(x.double()).dtype == torch.float64
