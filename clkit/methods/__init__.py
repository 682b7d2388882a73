"""The methods by name. A name is a Learner class and what it sets differently from the class's Config."""

import sys
from dataclasses import dataclass, field

from clkit.methods import er, finetune, lwf


@dataclass(frozen=True)
class Method:
    """learner: the Learner class.   settings: fields of its Config that make this variant."""

    learner: type
    settings: dict = field(default_factory=dict)

    @property
    def config(self):
        """The Config class, which stands beside the learner in its file."""
        return sys.modules[self.learner.__module__].Config


METHODS = {
    "finetune": Method(finetune.Finetune),
    "joint": Method(finetune.Joint),
    "cumulative": Method(finetune.Cumulative),
    "lwf": Method(lwf.LwF),
    "lwf-multihead": Method(lwf.LwF, {"heads": "multi", "balance": False}),
    "er": Method(er.ER),
}
