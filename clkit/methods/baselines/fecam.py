"""FeCAM: Mahalanobis distances to class means in the features of a frozen network (Goswami et al. 2023).

    python -m clkit run fecam/split-shapes --preset teach

    FECAM(tasks): for each task t:
        t = 1: minimise CE(head(phi(x)), y); then phi stays as it is                        FeCAM.fit
        for each class y of the task:
            mu_y <- mean of phi(x)                                                          class_means
            Sigma_y <- covariance of phi(x)^lambda            Tukey's transformation        covariance
            Sigma_y <- Sigma_y + gamma_1 V_1 I + gamma_2 V_2 (1 - I)     shrinkage          shrunk
            Sigma_y <- Sigma_y(i, j) / sqrt(Sigma_y(i, i) Sigma_y(j, j))    normalisation   correlation
    CLASSIFY(x): argmin over y of  d_y^T Sigma_y^-1 d_y                                     mahalanobis
        d_y = unit(phi(x)^lambda) - unit(mu_y^lambda);  V_1, V_2: means of the entries on and off the diagonal

Details the paper leaves open
1. The mean is that of the features themselves, transformed afterwards, as in the authors' code; the mean of
   powers is another vector. Both vectors of the distance have length 1, while the covariance is that of
   features of any length: normalising it to correlations makes up for that. The distance has no term for the
   determinant, so a class of large variance would attract all images; that too is what normalising prevents.
2. The authors' code shrinks each covariance twice. For gamma_1 = gamma_2 = 1 that is shrinking once with 3.
3. The code measures the first task by the cosine to the weights of its classifier. Here every task has the
   same distance.
4. covariance="common" has one matrix, averaged over tasks in proportion to their classes. As in the code, it
   is that of all features of a task about their common mean, so that differences between classes count too,
   and it is not normalised. The code shrinks each task's matrix but the first; here the average is shrunk.
5. covariance="none" is the identity: with power = 1 this is the nearest class mean by cosine.
6. Covariances are divided by n - 1. Without shrinkage they are singular if a class has fewer images than
   features: the inverse, in double precision, is then the pseudo-inverse, which ignores the directions that
   the class does not have.
7. The paper trains the first task with SGD, a cosine schedule and stronger augmentation (AutoAugment). Here
   it has the recipe of GFR, like the other methods whose network stays as the first task leaves it.

Records: table "loss" (epoch, loss: mean cross-entropy of an epoch of the first task).
Keeps between tasks: the weights, a mean of each class, and the inverse of each class's covariance, which is
as large; covariance="common" keeps one covariance and its inverse.
"""

from dataclasses import dataclass
from typing import Literal

import torch
from torch.nn import functional as F

from clkit.blocks import nets
from clkit.blocks.features import class_means, features_of
from clkit.blocks.pixels import Standardise
from clkit.blocks.recipe import learn_features
from clkit.engine.evaluate import eval_mode
from clkit.engine.learner import Learner, check_config
from clkit.engine.parallel import spread

REVISION = 1


@dataclass(frozen=True)
class Config:
    """Defaults: CIFAR-100 in the paper, and the recipe of GFR for the first task (detail 7)."""

    covariance: Literal["class", "common", "none"] = "class"    # of each class, of all classes, the identity
    power: float = 0.5          # lambda of Tukey's transformation; 1 leaves features as they are
    gamma_1: float = 1.0        # shrinkage of the diagonal; at 0 none
    gamma_2: float = 1.0        # shrinkage off the diagonal; at 0 none
    correlation: bool = True    # normalise the covariance of each class
    net: str = "resnet18-wide"  # network, by its name in clkit.blocks.nets
    mean: tuple[float, ...] = (0.4914, 0.4822, 0.4465)  # subtracted from the pixels, by channel or for all
    std: tuple[float, ...] = (0.2023, 0.1994, 0.2010)   # divides them
    augment: Literal["none", "flip", "shift", "zoom"] = "shift"     # of training images (clkit.blocks.recipe)
    view: int = 0               # side of what the network sees of an image, its centre in tests; 0: all of it
    epochs: int = 201           # passes over the images of the first task
    milestones: tuple = (199,)  # epochs after which the learning rate is divided by 10
    batch_size: int = 128       # images per step
    lr: float = 1e-3            # learning rate of Adam
    weight_decay: float = 2e-4  # of Adam, added to the gradient

    def __post_init__(self):
        check_config(self, above_0="power lr std", from_0="view")


class FeCAM(Learner):
    """Feature covariance-aware metric."""

    parallel = True
    tables = {"loss": "one row per epoch of the first task: epoch, loss"}
    memory_kinds = {"means": "features", "precisions": "features", "common": "features"}

    def __init__(self, config, shape, classes):
        super().__init__(config, shape, classes)
        self.net = nets.build(config.net, shape, classes)
        self.standardise = Standardise(config.mean, config.std, shape[0], config.view)
        size = self.net.head.in_features                                        # D
        self.register_buffer("means", torch.zeros(0, size, device="cpu"))       # (seen, D)
        self.register_buffer("precisions", torch.zeros(0, size, size, device="cpu"))    # (seen or 1, D, D)
        self.register_buffer("common", torch.zeros(0, size, device="cpu"))      # (D, D)

    def learn(self, task, trace):
        if task.first == 0:
            later = "covariance power gamma_1 gamma_2 correlation"
            learn_features(self.net, self.standardise, self.config, task, trace, spread, later)
        with eval_mode(self):
            features, y = features_of(self, task.train), task.train.labels - task.first      # (N, D)
            self.means = torch.cat([self.means, class_means(features, y, task.seen - task.first)])
            powers = features.double() ** self.config.power
            if self.config.covariance == "class":
                new = [self.precision(covariance(powers[y == k])) for k in range(task.seen - task.first)]
                self.precisions = torch.cat([self.precisions, torch.stack(new)])
            elif self.config.covariance == "common":
                self.merge(covariance(powers), task.first / task.seen)

    def precision(self, sigma):
        """The inverse of the covariance of a class, shrunk and normalised: (D, D), double -> float."""
        sigma = shrunk(sigma, self.config.gamma_1, self.config.gamma_2)
        sigma = correlation(sigma) if self.config.correlation else sigma
        return torch.linalg.pinv(sigma, hermitian=True).float()

    def merge(self, new, share):
        """Average the common covariance, with weight `share`, with that of a task, (D, D)."""
        new = new if share == 0 else share * self.common + (1 - share) * new
        self.common = new.float()
        new = shrunk(new, self.config.gamma_1, self.config.gamma_2)
        self.precisions = torch.linalg.pinv(new, hermitian=True).float()[None]

    def features(self, x):
        return spread(self.net.features, self.standardise(x))                   # (B, D)

    def forward(self, x):
        """Minus the distances, (B, classes seen)."""
        x, means = (F.normalize(v ** self.config.power) for v in (self.features(x), self.means))
        if self.config.covariance == "none":
            return -torch.cdist(x, means).square()
        return -mahalanobis(x, means, self.precisions)


# ---- the paper's equations


def covariance(features):
    """The covariance (D, D) of the columns of features (N, D), divided by N - 1."""
    centred = features - features.mean(0)
    return centred.T @ centred / (len(features) - 1)


def shrunk(sigma, gamma_1, gamma_2):
    """Covariance shrinkage: add gamma_1 V_1 on the diagonal of sigma (D, D), and gamma_2 V_2 off it.

    V_1 and V_2: the means of the entries on and off the diagonal.
    """
    size, diagonal = len(sigma), sigma.diagonal()
    on = diagonal.mean()
    off = (sigma.sum() - diagonal.sum()) / max(1, size * (size - 1))
    eye = torch.eye(size, dtype=sigma.dtype, device=sigma.device)
    return sigma + gamma_1 * on * eye + gamma_2 * off * (1 - eye)


def correlation(sigma):
    """Correlation normalisation: sigma (D, D) with its rows and columns divided by the standard deviations.

    A feature without variance keeps a row of zeros.
    """
    scale = sigma.diagonal().sqrt()
    scale = torch.where(scale > 0, scale, 1.0)
    return sigma / (scale[:, None] * scale)


def mahalanobis(x, means, precisions):
    """Squared Mahalanobis distances (B, K) of x (B, D) to the means (K, D).

    precisions: inverse covariances, (K, D, D) or (1, D, D) for all classes. Class by class, because the
    differences of all images and classes together would be large.
    """
    found = []
    for mean, precision in zip(means, precisions.expand(len(means), -1, -1)):
        gap = x - mean                                                          # (B, D)
        found.append((gap @ precision * gap).sum(1))
    return torch.stack(found, 1) if found else x.new_zeros(len(x), 0)
