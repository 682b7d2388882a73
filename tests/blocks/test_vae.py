"""The variational autoencoder against matrix products and torch.distributions."""

import pytest
import torch

from clkit.blocks.vae import VAE, kl_to_normal
from tests.reference.vae import chain, vae_terms


def pixels(n, shape):
    draw = torch.Generator("cpu").manual_seed(0)
    return torch.rand(n, *shape, generator=draw, dtype=torch.float64, device="cpu")


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("shape, hidden", [((1, 6, 6), (12, 8)), ((3, 4, 5), (9,)), ((2, 3, 3), ())])
def test_the_terms_of_its_loss_against_the_definition(shape, hidden, bias):
    torch.manual_seed(1)
    vae, x = VAE(shape, 3, hidden, variance_bias=bias).double(), pixels(7, shape)
    for p in vae.parameters():
        p.data.mul_(2)  # away from the start, where the KL is nearly 0
    mean, log_variance = vae(x)
    torch.manual_seed(2)
    error = vae.error(x, mean, (log_variance / 2).exp())
    torch.manual_seed(2)
    noise = torch.randn(7, 3, dtype=torch.float64, device="cpu")
    errors, divergences = vae_terms(vae, x, noise)
    torch.testing.assert_close(error, errors)
    torch.testing.assert_close(kl_to_normal(mean, log_variance.exp(), log_variance), divergences)
    assert (vae.log_variance.bias is not None) == bias


def test_decoded_codes_are_means_of_pixels():
    vae = VAE((3, 4, 5), 3, (9, 7)).double()
    torch.manual_seed(2)
    x = vae.sample(6)
    torch.manual_seed(2)
    z = vae.codes(6)
    assert z.shape == (6, 3) and z.dtype == torch.float64
    assert [len(layer.bias) for layer in vae.decoder] == [7, 9, 60], "the encoder's layers in reverse"
    expected = torch.sigmoid(chain(vae.decoder, z))
    assert x.shape == (6, 3, 4, 5)
    torch.testing.assert_close(x.flatten(1), expected)
    torch.testing.assert_close(vae.decode(z), x)


def test_dropout_is_for_training_only():
    vae, x = VAE((1, 6, 6), 3, (50,), dropout=0.5), pixels(4, (1, 6, 6)).float()
    assert not torch.equal(vae(x)[0], vae(x)[0])
    vae.eval()
    assert torch.equal(vae(x)[0], vae(x)[0])


@pytest.mark.parametrize(
    "settings, count",
    [
        (((1, 28, 28), 100, (400, 400), 0.0, False), 1_069_684),
        (((1, 28, 28), 50, (128, 128)), 254_068),
        (((1, 28, 28), 50, (128,)), 221_044),
    ],
)
def test_sizes_of_the_papers_generators(settings, count):
    assert sum(p.numel() for p in VAE(*settings).parameters()) == count
