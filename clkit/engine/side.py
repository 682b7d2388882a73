"""Unlabelled images of another data set, for methods that need some and name the set."""

import torch

from clkit.data import DataError, load
from clkit.engine.learner import LearnerError


def side_images(name, shape, device):
    """The training images of the data set `name`, uint8 (N, C, H, W) of shape (C, H, W), on a device.

    They are resized, and turned grey or copied to all channels. LearnerError if the set is not here.
    """
    try:
        train = load(name)[0]
    except DataError as error:
        raise LearnerError(f"no unlabelled images: {error}; or name another set in side_data=") from error
    images = train.images if train.shape[1:] == shape[1:] else train.resized(shape[1]).images
    if images.shape[1] > shape[0]:
        images = images.float().mean(1, keepdim=True).round().to(torch.uint8)
    return images.expand(-1, shape[0], -1, -1).to(device)
