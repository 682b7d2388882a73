"""Checks of SpaceNet's settings; each setting that cannot work is refused in one sentence."""

from clkit.engine.learner import LearnerError, check_config


def check_settings(config):
    """Raise LearnerError if fields of a Config cannot work or contradict one another."""
    check_config(config, above_0="lr", own="hidden maps selected reserved connections rewire mean std")
    maps, hidden, selected, reserved = config.maps, config.hidden, config.selected, config.reserved
    wanted, units = config.connections, (*maps, *hidden)
    _require((config.net == "conv") == bool(maps),
             "net must be 'mlp', without maps, or 'conv', with maps such as (32, 32, 64, 64): there is no "
             f"network {config.net!r} with maps {maps}")
    _require(not maps or (len(maps) == 4 and len(hidden) == 1),
             f"the convolutional network takes four numbers of maps and one of hidden units, not {maps} and "
             f"{hidden}")
    _require(0 <= config.rewire < 1,
             f"rewire must be a share of the connections in [0, 1), not {config.rewire}")
    _require(len(config.mean) == len(config.std) and all(s > 0 for s in config.std),
             f"mean and std must have one number per channel, above 0 for std, not {config.mean} and "
             f"{config.std}")
    _require(min(units, default=0) >= 1, f"hidden layers must have at least one unit, not {units}")
    _require(len(reserved) == len(selected or units) == len(units),
             f"selected and reserved must have one number for each of the {len(units)} hidden layers, not "
             f"{selected} and {reserved}")
    for most, some, few in zip(units, selected or units, reserved):
        _require(1 <= some <= most, f"selected: {some} neurons of a hidden layer of {most} cannot be chosen")
        _require(0 <= few <= some, f"reserved: {few} of {some} selected neurons cannot be reserved")
    if not isinstance(wanted, tuple):
        _require(0 < wanted <= 1, f"connections, as a share of the places, must lie in (0, 1], not {wanted}")
    else:
        layers = len(units) + 1
        _require(len(wanted) == layers and min(wanted) >= 1,
                 f"connections must have a number of at least 1 for each of {layers} layers, not {wanted}")


def check_sizes(config, channels, widths, wanted):
    """Raise LearnerError if a Config does not fit the images and classes.

    channels: of the images.   widths: neurons by layer, from the inputs to the classes.   wanted: connections
    of a task by layer.
    """
    _require(len(config.mean) in (1, channels),
             f"mean and std have {len(config.mean)} numbers, but the images have {channels} channels")
    chosen = (widths[0], *(config.selected or widths[1:-1]), widths[-1])
    for l, (connections, n, m) in enumerate(zip(wanted, chosen, chosen[1:]), 1):
        _require(connections <= n * m or not isinstance(config.connections, tuple),
                 f"connections: layer {l} has {n * m:,} places between its selected neurons, too few for "
                 f"{connections:,} connections")


def _require(holds, sentence):
    if not holds:
        raise LearnerError(sentence)
