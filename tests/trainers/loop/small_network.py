"""A small network in float64 with its learner, and a loop over one batch."""

import torch
from torch import nn
from torch.nn import functional as F

from wtdiag.trainers.config.settings import Settings
from wtdiag.trainers.layers.convert import transport_free
from wtdiag.trainers.loop.learner import Learner

X, Y = torch.randn(8, 2, 5, 5, generator=torch.Generator().manual_seed(0)).double(), torch.arange(8) % 3


def make(rule="sa", total=100, epoch=10, **settings):
    """The network, always with the same weights, and what moves them at constant rates."""
    torch.manual_seed(0)
    chosen = Settings(rule=rule, warmup=0.0, schedule="constant", **settings)
    net = nn.Sequential(
        nn.Conv2d(2, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Linear(36, 5), nn.ReLU(), nn.Linear(5, 3)
    )
    model = transport_free(net.double(), chosen.rule_at(0.0, 0.0))
    return model, Learner(model, chosen, total=total, epoch=epoch)


def run(model, learner, steps, first=0):
    for step in range(first, first + steps):
        learner.begin(step)
        F.cross_entropy(model(X), Y).backward()
        learner.step(step)
