"""Networks evaluated with other weights than their own, and gradients of single images."""

import torch
from torch.func import functional_call, grad, vmap
from torch.nn import functional as F

from clkit.blocks import nets

# ---- other weights


def tensors_of(module):
    """Parameters, and copies of the buffers, by name: a pass with them leaves the module unchanged."""
    return dict(module.named_parameters()) | {name: b.clone() for name, b in module.named_buffers()}


def step_down(module, gradients, lr, tensors=None):
    """The module's tensors by name after a virtual step of gradient descent; the module is unchanged.

    gradients: of its parameters, in their order; tensors: as `tensors_of` returns them, by default its own.
    """
    after = {name: p.detach() - lr * g for (name, p), g in zip(module.named_parameters(), gradients)}
    return (tensors_of(module) if tensors is None else tensors) | after


# ---- single images

@torch.no_grad()
def sum_over_set(of, net, images, seen, errors):
    """Sum of of(gradient of error . net(x)), as below, over all images, in eval mode: (P,).

    images: an ImageSet; errors(logits (B, seen), y (B,)): the errors that count, (B, seen) each.
    """
    mode, plain, total = net.training, isinstance(net, nets.MLP), 0.0
    over_images = sum_over_images_mlp if plain else sum_over_images
    net.eval()
    for x, y in images.batches(1000 if plain else 32, shuffle=False):
        logits = net(x)                                                         # (B, K)
        for error in errors(logits[:, :seen], y):
            error = F.pad(error, (0, logits.shape[1] - seen))                   # (B, K)
            total += over_images(of, net, x, error)
    net.train(mode)
    return total


def sum_over_images(of, net, x, error):
    """Sum over the images of of(gradient of error . net(x) in the weights), image by image: (P,).

    of: an elementwise function, torch.square or torch.abs; x (B, C, H, W); error (B, K), the gradient in the
    network's outputs. P follows net.parameters(). One backward pass per image, for any network.
    """
    parameters = {name: p.detach() for name, p in net.named_parameters()}

    def along(parameters, image, error):
        return functional_call(net, parameters, (image[None],))[0] @ error

    gradients = vmap(grad(along), in_dims=(None, 0, 0))(parameters, x, error)   # name -> (B, *its shape)
    return torch.cat([of(gradients[name]).sum(0).flatten() for name in parameters])


def sum_over_images_mlp(of, net, x, error):
    """The same for an MLP (blocks/nets.py) and an `of` with of(a b) = of(a) of(b), many times faster.

    The gradient of one image is delta h^T in a layer's weights and delta in its biases, where h is the
    layer's input and delta the gradient in its output. So the sum over images is a product of two
    matrices.
    """
    inputs = [x.flatten(1)]                                                     # of each layer, (B, D)
    for layer in net.hidden:
        inputs.append(F.relu(layer(inputs[-1])))
    parts = []
    for layer, h in zip((net.head, *reversed(net.hidden)), reversed(inputs)):
        size = of(error)                                                        # (B, D of the outputs)
        parts = [(size.T @ of(h)).flatten(), size.sum(0), *parts]
        error = error @ layer.weight * (h > 0)
    return torch.cat(parts)
