"""Whole networks by every rule against formulas written out in NumPy."""

import numpy as np
import pytest
from torch import Tensor, nn

from tests.trainers.rules.networks import FACTORED, gradients, network, step
from wtdiag.trainers.layers.convert import synapses
from wtdiag.trainers.rules import RULES


def written_out(name: str, net: nn.Module, x: Tensor, target: Tensor) -> dict[str, np.ndarray]:
    """Gradients of the three-layer perceptron under cross-entropy, in numpy."""
    layers = [layer for _, layer in synapses(net)]
    w = [layer.weight.detach().numpy() for layer in layers]
    b = [layer.feedback.detach().numpy() for layer in layers]
    h, n = [x.numpy()], len(x)
    for i, layer in enumerate(layers):
        z = h[-1] @ w[i].T + layer.bias.detach().numpy()
        h.append(np.tanh(z) if i < 2 else z)
    p = np.exp(h[3]) / np.exp(h[3]).sum(1, keepdims=True)
    onehot = np.eye(3)[target.numpy()]
    error = (p - onehot) / n
    delta, out = error, {}
    for i in (2, 1, 0):
        out[f"{2 * i}.weight"] = delta.T @ h[i]
        out[f"{2 * i}.bias"] = delta.sum(0)
        if name in FACTORED:
            p, r = (f.detach().numpy() for f in (net[2 * i].feedback_left, net[2 * i].feedback_right))
            decay, narrow = net[2 * i].rule.decay, delta @ p
            out[f"{2 * i}.feedback_right"] = narrow.T @ h[i] + decay * r
            out[f"{2 * i}.weight"] = out[f"{2 * i}.weight"] + decay * w[i]
            if net[2 * i].rule.learns_left:
                climbed = (delta - narrow @ p.T).T @ narrow
                out[f"{2 * i}.feedback_left"] = -net[2 * i].rule.oja * climbed / np.square(narrow).sum()
        elif name == "kp":
            out[f"{2 * i}.feedback"] = delta.T @ h[i] + net[2 * i].rule.decay * b[i]
            out[f"{2 * i}.weight"] = out[f"{2 * i}.weight"] + net[2 * i].rule.decay * w[i]
        elif name == "dkp":
            out[f"{2 * i}.feedback"] = error.T @ h[i] + net[2 * i].rule.decay * b[i]
        elif name == "np":  # whose noise is zero here
            out[f"{2 * i}.feedback"] = n * delta.T @ (delta @ b[i])
        elif name == "wm-live":
            out[f"{2 * i}.feedback"] = net[2 * i].rule.decay * b[i]
        elif RULES[name].learned:
            y = h[i] @ w[i].T
            terms = {
                "amp": -y.T @ h[i] / n,
                "null": y.T @ y @ b[i] / n,
                "decay": b[i],
                "sparse": b[i] @ h[i].T @ h[i] / n,
                "self": -w[i],
            }
            out[f"{2 * i}.feedback"] = sum(v * terms[k] for k, v in net[2 * i].rule.coefficients.items())
        if i:
            sent = {"dfa": error, "dkp": error, "drtp": -onehot / n}.get(name, delta)
            delta = sent @ b[i] * (1 - h[i] ** 2)
    return out


@pytest.mark.parametrize("name", [name for name in RULES if name not in ("wm", "ldrl")])
def test_network_equals_the_written_out_one(name):
    net, x, target = network("dense", name)
    step(net, x, target)
    expected = written_out(name, net, x, target)
    got = gradients(net, "")
    assert set(got) == set(expected)
    for key in expected:
        np.testing.assert_allclose(got[key].numpy(), expected[key], rtol=1e-9, atol=1e-13)
