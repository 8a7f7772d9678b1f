"""One channel of the feedback against dense matrices of the whole layer, example by example."""

import dataclasses
import math

import numpy as np
import pytest

from tests.trainers.observe.test_laws import layer_of, matrix_of
from wtdiag.trainers.layers.operations import Dense

RULES = {"ia": {"null": 0.3, "decay": 0.2}, "aa": {"sparse": 0.3}}


def eigenvalues(matrix, copies):
    return np.sort(np.linalg.eigvalsh(matrix))[::copies]


def unit_basis(channel):
    return np.eye(math.prod(channel.shape)).reshape(-1, *channel.shape)


@pytest.mark.parametrize("reduction", ["mean", "sum"])
@pytest.mark.parametrize("name", RULES)
@pytest.mark.parametrize("case", ["linear", "conv2d", "transposed2d"])
def test_a_channel_has_the_eigenvalues_of_the_layer_for_each_example(case, name, reduction):
    model, _, signals = layer_of(case, name, **RULES[name], reduction=reduction)
    law, shape = signals["law"], tuple(model.feedback.shape)
    channel = law.channel()
    basis = unit_basis(channel)
    copies = math.prod(shape) // len(basis)
    mean = np.stack([channel.product(unit).ravel() for unit in basis])
    np.testing.assert_allclose(eigenvalues(mean, 1), eigenvalues(matrix_of(law, shape), copies), atol=1e-9)
    deviations = channel.deviations(basis)
    np.testing.assert_allclose(deviations.mean(0), 0, atol=1e-12)
    for example, deviation in enumerate(deviations):
        alone = [dataclasses.replace(use, x=use.x[example : example + 1]) for use in law.uses]
        own = matrix_of(dataclasses.replace(law, uses=tuple(alone), examples=1), shape)
        np.testing.assert_allclose(eigenvalues(mean + deviation, 1), eigenvalues(own, copies), atol=1e-9)


@pytest.mark.parametrize("case", ["conv1d-groups", "conv2d-depthwise", "transposed1d"])
@pytest.mark.parametrize("name", RULES)
def test_the_strongest_group_stands_for_the_layer(case, name):
    model, _, signals = layer_of(case, name, **RULES[name])
    channel = signals["law"].channel()
    mean = np.stack([channel.product(unit).ravel() for unit in unit_basis(channel)])
    whole = np.linalg.eigvalsh(matrix_of(signals["law"], tuple(model.feedback.shape)))
    assert all(np.abs(whole - value).min() < 1e-9 for value in np.linalg.eigvalsh(mean))


def test_an_epoch_of_one_batch_does_not_fluctuate():
    law = layer_of("linear", "ia")[2]["law"]
    assert dataclasses.replace(law, epoch=1).channel() is None
    assert not dataclasses.replace(law, epoch=1).noise(np.zeros((4, 5)), 2).any()
    basis = unit_basis(law.channel())
    whole, half = (dataclasses.replace(law, epoch=epoch).channel().deviations(basis) for epoch in (None, 2))
    np.testing.assert_allclose(half, whole / 2**0.5)


@pytest.mark.parametrize(
    ("name", "coefficients"), [("sa", {}), ("kp", {}), ("wm-reg", {}), ("sum", {"null": 1.0, "sparse": 1.0})]
)
def test_rules_without_a_channel(name, coefficients):
    law = layer_of("linear", name, **coefficients)[2]["law"]
    assert law.channel() is None is law.white()


def test_noise_inputs_have_a_size_instead_of_a_channel():
    law = layer_of("linear", "aa", inputs="noise")[2]["law"]
    assert law.channel() is None
    assert isinstance(law.uses[0].op, Dense)
    assert law.white() == (5, law.examples, 0.0)
    assert dataclasses.replace(law, batch_size=7).white().samples == 7
    uniform = layer_of("linear", "aa", inputs="noise", noise="uniform")[2]["law"]
    assert uniform.white().dimension == pytest.approx(5 - 1.2)
    assert layer_of("linear", "ia", inputs="noise")[2]["law"].white() == (4, law.examples, pytest.approx(0.0025))
