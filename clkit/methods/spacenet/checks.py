"""Settings of SpaceNet that cannot work, each refused in one sentence."""

from clkit.engine.learner import LearnerError


def check_settings(config):
    """Raise LearnerError if the fields of a Config do not fit one another."""
    _require(config.epochs >= 1 and config.batch_size >= 1 and config.lr > 0,
             "epochs and batch_size must be at least 1, and lr above 0")
    _require(config.net in ("mlp", "conv") and (config.net == "conv") == bool(config.maps),
             "net must be 'mlp', without maps, or 'conv', with maps such as (32, 32, 64, 64): there is no "
             f"network {config.net!r} with maps {config.maps}")
    _require(not config.maps or (len(config.maps) == 4 and len(config.hidden) == 1),
             "the convolutional network has four numbers of maps and one of hidden units, not "
             f"{config.maps} and {config.hidden}")
    for name, known in (("importance", ("paper", "code")), ("growth", ("importance", "random")),
                        ("softmax", ("all", "seen", "task"))):
        value = getattr(config, name)
        _require(value in known, f"{name} must be {' or '.join(map(repr, known))}, not {value!r}")
    _require(0 <= config.rewire < 1, f"rewire is a share of the connections in [0, 1), not {config.rewire}")
    _require(len(config.mean) == len(config.std) and all(s > 0 for s in config.std),
             "mean and std have a number for each channel, those of std above 0")
    _check_neurons(config, (*config.maps, *config.hidden))


def _check_neurons(config, units):
    """Whether as many neurons and connections can be had where hidden layers have so many units."""
    selected, reserved, wanted = config.selected or units, config.reserved, config.connections
    _require(min(units, default=0) >= 1, f"hidden layers have one unit or more, not {units}")
    _require(len(reserved) == len(selected) == len(units),
             f"selected and reserved have a number for each of the {len(units)} hidden layers, not "
             f"{config.selected} and {reserved}")
    for most, some, few in zip(units, selected, reserved):
        _require(1 <= some <= most, f"selected: {some} neurons of a hidden layer of {most} cannot be chosen")
        _require(0 <= few <= some, f"reserved: {few} of {some} selected neurons cannot be reserved")
    if isinstance(wanted, float):
        _require(0 < wanted <= 1, f"connections as a share of the places lies in (0, 1], not {wanted}")
    else:
        _require(len(wanted) == len(units) + 1 and min(wanted) >= 1,
                 "connections has a number of 1 or more for each layer, here "
                 f"{len(units) + 1} layers, not {wanted}")


def check_sizes(config, channels, widths, wanted):
    """Raise LearnerError if a Config does not fit the images and classes.

    channels: of the images.   widths: neurons by layer, from the inputs to the classes.   wanted: connections
    of a task by layer.
    """
    _require(len(config.mean) in (1, channels),
             f"mean and std have {len(config.mean)} numbers, the images {channels} channels")
    chosen = (widths[0], *(config.selected or widths[1:-1]), widths[-1])
    for l, (connections, n, m) in enumerate(zip(wanted, chosen, chosen[1:]), 1):
        _require(connections <= n * m or isinstance(config.connections, float),
                 f"connections: layer {l} has {n * m:,} places between the neurons selected, too few for "
                 f"{connections:,} connections")


def _require(holds, sentence):
    if not holds:
        raise LearnerError(sentence)
