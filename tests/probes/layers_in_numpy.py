"""Small layers and laws of learning in plain numpy, with everything about them known exactly."""

import itertools
from dataclasses import dataclass

import numpy as np


@dataclass
class DenseOperator:
    shape: tuple

    def apply(self, weight, x):
        return x @ weight.T

    def adjoint(self, weight, y):
        return y @ weight


@dataclass
class Convolution:
    """A 2-D convolution with zero padding, as an explicit loop over its kernel."""

    shape: tuple
    padding: int = 1
    stride: int = 1

    def apply(self, weight, x):
        p, (h, w) = self.padding, self.shape[1:]
        padded = np.pad(x, ((0, 0), (0, 0), (p, p), (p, p)))
        kh, kw = weight.shape[2:]
        y = np.zeros((len(x), len(weight), h + 2 * p - kh + 1, w + 2 * p - kw + 1), x.dtype)
        for i, j in itertools.product(range(kh), range(kw)):
            y += np.einsum("oi,nihw->nohw", weight[:, :, i, j], padded[:, :, i : i + y.shape[2], j : j + y.shape[3]])
        return y[:, :, :: self.stride, :: self.stride]

    def adjoint(self, weight, y):
        p, (h, w) = self.padding, self.shape[1:]
        kh, kw = weight.shape[2:]
        dense = np.zeros((len(y), len(weight), h + 2 * p - kh + 1, w + 2 * p - kw + 1), y.dtype)
        dense[:, :, :: self.stride, :: self.stride] = y
        y = dense
        padded = np.zeros((len(y), self.shape[0], h + 2 * p, w + 2 * p), y.dtype)
        for i, j in itertools.product(range(weight.shape[2]), range(weight.shape[3])):
            part = np.einsum("oi,nohw->nihw", weight[:, :, i, j], y)
            padded[:, :, i : i + y.shape[2], j : j + y.shape[3]] += part
        return padded[:, :, p : p + h, p : p + w]

    def matrix(self, weight):
        """The whole operator, one column for each entry of the input."""
        unit = np.eye(np.prod(self.shape)).reshape(-1, *self.shape)
        return self.apply(weight, unit).reshape(len(unit), -1).T


@dataclass
class SumLaw:
    """Mean gradient null · C B + sparse · B Σ + decay · B − target, at given C and Σ."""

    target: np.ndarray
    c: np.ndarray
    sigma: np.ndarray
    null: float = 0.0
    sparse: float = 0.0
    decay: float = 0.0
    lr: float = 1.0
    optimizer: str = "sgd"
    momentum: float = 0.0
    nesterov: bool = False
    interval: int = 1
    weight_decay: float = 0.0
    update_noise: float = 0.0
    samples: np.ndarray | None = None
    batch: int = 8
    calls: int = 0

    def channel(self):
        """All batches have the same H."""

    def white(self):
        """The inputs are no noise."""

    def gradient(self, feedback):
        self.calls += 1
        b = feedback.astype(np.float64)
        rows = b.reshape(len(b), -1)
        made = self.null * self.c @ rows + self.sparse * rows @ self.sigma + self.decay * rows
        return (made.reshape(b.shape) - self.target).astype(feedback.dtype)

    def noise(self, feedback, draws):
        return np.zeros((draws, *feedback.shape)) if self.samples is None else self.samples[:draws]

    @property
    def matrix(self):
        """H with the weight decay, for B's entries in their order in memory."""
        out, fan_in = len(self.c), len(self.sigma)
        h = self.null * np.kron(self.c, np.eye(fan_in)) + self.sparse * np.kron(np.eye(out), self.sigma)
        return h + (self.decay + self.weight_decay) * np.eye(out * fan_in)


RULES = {  # coefficients, and what the target is made of
    "wm-reg": {"decay": 0.1},
    "sa": {"decay": 0.2},
    "ia": {"null": 0.01, "decay": 0.0025},
    "aa": {"sparse": 0.06},
    "sum": {"null": 0.02, "sparse": 0.03, "decay": 0.05},
}


def law_of(rule, shape=(6, 9), seed=0, examples=200, **others):
    """W, B and the law of a rule on rectified activations, whose mean makes Σ stiff."""
    generator = np.random.default_rng(seed)
    w, b = generator.normal(size=(2, *shape)) / shape[1] ** 0.5
    x = np.maximum(generator.normal(size=(examples, shape[1])), 0)
    y = x @ w.T
    c, sigma = y.T @ y / examples, x.T @ x / examples
    target = 0.2 * w if rule == "sa" else 0.06 * w @ sigma
    return w, b, SumLaw(target, c, sigma, **RULES[rule] | others)
