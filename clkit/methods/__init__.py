"""The Learner class of each method, by name; clkit/papers describes the methods.

FAMILIES is the registry, one line per file: a new method needs a new file and one line here.
"""

from importlib import import_module

FAMILIES = {                                            # file: {method: the Learner class in it}
    "baselines.finetune": {"finetune": "Finetune", "joint": "Joint", "cumulative": "Cumulative"},
    "baselines.lwf": {"lwf": "LwF", "lwf-multihead": "LwF"},
    "baselines.er": {"er": "ER"},
    "baselines.ewc": {"ewc": "EWC", "ewc-online": "EWC"},
    "baselines.si": {"si": "SI"},
    "baselines.mas": {"mas": "MAS"},
    "baselines.dgr": {"dgr": "DGR"},
    "baselines.icarl": {"icarl": "ICaRL"},
    "baselines.cwr": {"cwr": "CWR", "cwr-plus": "CWR"},
    "spacenet.spacenet": {"spacenet": "SpaceNet", "static": "SpaceNet", "rehearsal": "SpaceNet"},
    "arm.arm": {"arm": "ARM", "adi": "ARM", "distill": "ARM", "naive": "ARM", "stationary": "Stationary"},
    "baselines.mergan": {"mergan": "MeRGAN", "mergan-align": "MeRGAN"},
    "baselines.dgr_gan": {"dgr-gan": "DGRGAN"},
    "baselines.ewc_m": {"ewc-m": "EWCM"},
    "baselines.joint_d": {"joint-d": "JointD"},
    "baselines.fetril": {"fetril": "FeTrIL"},
    "baselines.fecam": {"fecam": "FeCAM", "fecam-common": "FeCAM", "ncm": "FeCAM"},
    "baselines.lucir": {"lucir": "LUCIR", "lucir-nme": "LUCIR"},
    "baselines.icarl_ce": {"icarl-cnn": "ICaRLCE", "icarl-nme": "ICaRLCE"},
    "baselines.heads": {"lwf-max": "Heads", "ewc-max": "Heads", "mas-max": "Heads"},
    "online.mir": {"er-online": "MIR", "er-mir": "MIR"},
    "online.gem": {"gem": "GEM"},
    "online.icarl": {"icarl-online": "OnlineICaRL"},
    "online.gen": {"gen": "GEN", "gen-mir": "GEN"},
    "gfr.gfr": {"gfr": "GFR", "gfr-gaussian": "GFR", "gfr-gaussian-scalar": "GFR", "gfr-gaussian-full": "GFR",
                "gfr-distill": "GFR", "gfr-replay": "GFR", "gfr-ewc": "GFR", "gfr-mas": "GFR",
                "gfr-finetune": "GFR", "gfr-joint": "JointGFR"},
    "dgm.dgm": {"dgmw": "DGM", "dgma": "DGM", "dgm-no-replay": "DGM"},
    "mfgr.mfgr": dict.fromkeys(("mfgr", "mfgr-code", "mfgr-base", "mfgr-bn", "mfgr-no-nkd"), "MFGR"),
    "mfgr.deep_inversion": {"deep-inversion": "DeepInversion"},
    "mfgr.icarl_g": {"icarl-sgd": "ICaRLSGD", "icarl-mfgr": "ICaRLG"},
    "baselines.lwf_local": {"lwf-sgd": "LocalLwF"},
    "baselines.lwm": {"lwm": "LwM"},
    "baselines.muc": {"mas-sgd": "MUC", "muc-mas": "MUC", "muc-lwf": "MUC"},
    "baselines.oracle": {"finetune-sgd": "FinetuneSGD", "oracle": "Oracle"},
}

LEARNERS = {method: getattr(import_module(f"clkit.methods.{file}"), name)
            for file, methods in FAMILIES.items() for method, name in methods.items()}
