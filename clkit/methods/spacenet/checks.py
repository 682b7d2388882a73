"""Settings of SpaceNet that cannot work, each refused in one sentence."""

from clkit.engine.learner import LearnerError, check_config


def check_settings(config):
    """Raise LearnerError if the fields of a Config cannot work or do not fit one another."""
    maps, hidden, selected, reserved = config.maps, config.hidden, config.selected, config.reserved
    wanted, units = config.connections, (*maps, *hidden)
    check_config(config, above_0="lr", own="hidden maps selected reserved connections rewire mean std")
    _require((config.net == "conv") == bool(maps),
             "net must be 'mlp', without maps, or 'conv', with maps such as (32, 32, 64, 64): there is no "
             f"network {config.net!r} with maps {maps}")
    _require(not maps or (len(maps) == 4 and len(hidden) == 1),
             f"the convolutional network has four numbers of maps and one of hidden units, not {maps} and "
             f"{hidden}")
    _require(0 <= config.rewire < 1, f"rewire is a share of the connections in [0, 1), not {config.rewire}")
    _require(len(config.mean) == len(config.std) and all(s > 0 for s in config.std),
             "mean and std have a number for each channel, those of std above 0")
    _require(min(units, default=0) >= 1, f"hidden layers have one unit or more, not {units}")
    _require(len(reserved) == len(selected or units) == len(units),
             f"selected and reserved have a number for each of the {len(units)} hidden layers, not "
             f"{selected} and {reserved}")
    for most, some, few in zip(units, selected or units, reserved):
        _require(1 <= some <= most, f"selected: {some} neurons of a hidden layer of {most} cannot be chosen")
        _require(0 <= few <= some, f"reserved: {few} of {some} selected neurons cannot be reserved")
    if isinstance(wanted, float):
        _require(0 < wanted <= 1, f"connections as a share of the places lies in (0, 1], not {wanted}")
    else:
        layers = len(units) + 1
        _require(len(wanted) == layers and min(wanted) >= 1,
                 f"connections has a number of 1 or more for each layer, here {layers} layers, not {wanted}")


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
