"""The methods by name. A name is a Learner class and what it sets differently from the class's Config."""

import sys
from dataclasses import dataclass, field

from clkit.methods import (arm, cwr, dgr, er, ewc, finetune, gem, gen, icarl, icarl_online, lwf, mas, mir, si,
                           spacenet)


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
    "ewc": Method(ewc.EWC),
    "ewc-online": Method(ewc.EWC, {"online": True, "strength": 1e9}),
    "si": Method(si.SI),
    "mas": Method(mas.MAS),
    "dgr": Method(dgr.DGR),
    "icarl": Method(icarl.ICaRL),
    "cwr": Method(cwr.CWR),
    "cwr-plus": Method(cwr.CWR, {"plus": True, "softmax": "all"}),
    "spacenet": Method(spacenet.SpaceNet),
    "static": Method(spacenet.SpaceNet, {"adaptive": False}),
    "rehearsal": Method(spacenet.SpaceNet, {"rehearsal": True, "lr": 0.1}),
    "arm": Method(arm.ARM),
    "adi": Method(arm.ARM, {"recall": "adi", "distill": 0.5}),
    "distill": Method(arm.ARM, {"recall": "none"}),
    "naive": Method(arm.ARM, {"recall": "none", "distill": 0.0}),
    "stationary": Method(arm.Stationary, {"recall": "none", "distill": 0.0}),
    "er-online": Method(mir.MIR),
    "er-mir": Method(mir.MIR, {"choose": "interfered"}),
    "gem": Method(gem.GEM),
    "icarl-online": Method(icarl_online.OnlineICaRL),
    "gen": Method(gen.GEN),
    "gen-mir": Method(gen.GEN, {"choose": "interfered", "images": 100, "hidden": (128,), "dropout": 0.4}),
}
