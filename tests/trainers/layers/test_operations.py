"""The three operations against matrices and loops written out by hand."""

from itertools import product

import pytest
import torch
from torch import Tensor

from wtdiag.trainers.layers.operations import Convolution, Dense, Operation

OPERATIONS: dict[str, tuple[Operation, tuple[int, ...], tuple[int, ...]]] = {
    "dense": (Dense(), (2, 3), (4, 3)),
    "dense-3d": (Dense(), (2, 2, 3), (4, 3)),
    "conv1d": (Convolution((2,), (1,), (2,)), (2, 2, 8), (3, 2, 3)),
    "conv2d": (Convolution((1, 2), (1, 0), (1, 1)), (1, 2, 4, 5), (2, 2, 3, 2)),
    "conv2d-groups": (Convolution((1, 1), (1, 1), (1, 1), groups=2), (1, 4, 3, 3), (4, 2, 2, 2)),
    "conv3d": (Convolution((1, 1, 2), (0, 1, 0), (1, 1, 1)), (1, 1, 2, 3, 4), (2, 1, 2, 2, 2)),
    "transposed1d": (Convolution((3,), (1,), (2,), True, (1,)), (2, 2, 4), (2, 3, 3)),
    "transposed2d": (Convolution((2, 1), (0, 1), (1, 1), True), (1, 2, 3, 3), (2, 1, 3, 2)),
    "transposed2d-groups": (Convolution((2, 2), (0, 0), (1, 1), True, groups=2), (1, 4, 2, 2), (4, 1, 2, 2)),
    "transposed3d": (Convolution((1, 1, 1), (0, 0, 0), (1, 1, 1), True), (1, 1, 2, 2, 2), (1, 2, 2, 1, 2)),
}


def random(shape: tuple[int, ...], seed: int) -> Tensor:
    return torch.randn(shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def loops(op: Operation, x: Tensor, w: Tensor) -> Tensor:
    """W x, one multiplication at a time."""
    if isinstance(op, Dense):
        y = x.new_zeros(*x.shape[:-1], w.shape[0])
        for place in product(*map(range, x.shape[:-1])):
            for o, i in product(*map(range, w.shape)):
                y[(*place, o)] += w[o, i] * x[(*place, i)]
        return y
    assert isinstance(op, Convolution)
    dims, kernel, size = len(op.stride), w.shape[2:], x.shape[2:]
    reach = [op.dilation[d] * (kernel[d] - 1) + 1 for d in range(dims)]
    if op.transposed:
        extra = op.output_padding or (0,) * dims
        shape = [(size[d] - 1) * op.stride[d] + reach[d] - 2 * op.padding[d] + extra[d] for d in range(dims)]
        channels = w.shape[1] * op.groups
    else:
        shape = [(size[d] + 2 * op.padding[d] - reach[d]) // op.stride[d] + 1 for d in range(dims)]
        channels = w.shape[0]
    y = x.new_zeros(x.shape[0], channels, *shape)
    far, near = (y, x) if op.transposed else (x, y)  # the strided walk goes over `far`, in steps of `near`
    share = w.shape[1]
    for a, b in product(range(w.shape[0]), range(share)):
        group = a // (w.shape[0] // op.groups)
        for place in product(*map(range, near.shape[2:])):
            for tap in product(*map(range, kernel)):
                at = tuple(place[d] * op.stride[d] - op.padding[d] + tap[d] * op.dilation[d] for d in range(dims))
                if any(not 0 <= at[d] < far.shape[2 + d] for d in range(dims)):
                    continue
                there, here = (slice(None), group * share + b, *at), (slice(None), a, *place)
                if op.transposed:
                    y[there] += w[(a, b, *tap)] * x[here]
                else:
                    y[here] += w[(a, b, *tap)] * x[there]
    return y


def matrix(op: Operation, x: Tensor, w: Tensor) -> Tensor:
    """The map x -> W x as a matrix, one column for each entry of x."""
    units = torch.eye(x.numel(), dtype=x.dtype).view(-1, *x.shape)
    return torch.stack([op.apply(unit, w).flatten() for unit in units], dim=1)


@pytest.mark.parametrize("name", OPERATIONS)
def test_apply_equals_loops(name):
    op, x_shape, w_shape = OPERATIONS[name]
    x, w = random(x_shape, 0), random(w_shape, 1)
    torch.testing.assert_close(op.apply(x, w), loops(op, x, w), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("name", OPERATIONS)
def test_adjoint_is_the_transposed_matrix(name):
    op, x_shape, w_shape = OPERATIONS[name]
    x, w = random(x_shape, 0), random(w_shape, 1)
    y = random(tuple(op.apply(x, w).shape), 2)
    expected = (matrix(op, x, w).T @ y.flatten()).view(x.shape)
    torch.testing.assert_close(op.adjoint(y, w, torch.empty_like(x)), expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("name", OPERATIONS)
def test_outer_pairs_each_weight_with_what_it_multiplies(name):
    op, x_shape, w_shape = OPERATIONS[name]
    x, w = random(x_shape, 0), random(w_shape, 1)
    y = random(tuple(op.apply(x, w).shape), 2)
    units = torch.eye(w.numel(), dtype=w.dtype).view(-1, *w.shape)
    expected = torch.stack([(loops(op, x, unit) * y).sum() for unit in units]).view(w.shape)
    torch.testing.assert_close(op.outer(x, y, torch.empty_like(w)), expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("name", OPERATIONS)
def test_outer_onto_adds_a_multiple_of_a_matrix_where_it_is_offered(name):
    op, x_shape, w_shape = OPERATIONS[name]
    x, w = random(x_shape, 0), random(w_shape, 1)
    y = random(tuple(op.apply(x, w).shape), 2)
    before, total = w.clone(), op.outer_onto(x, y, w, 0.3)
    assert (total is not None) == (isinstance(op, Dense) and w.dim() == 2)
    if total is not None:
        torch.testing.assert_close(total, op.outer(x, y, w) + 0.3 * w, rtol=1e-12, atol=1e-12)
    assert torch.equal(w, before)
    assert op.outer_onto(x.float(), y.float(), w, 0.3) is None  # a product in less precision is not added in place


@pytest.mark.parametrize("wanted", list(product([True, False], repeat=3)))
@pytest.mark.parametrize("name", ["dense", "conv2d", "transposed1d"])
def test_backward_gives_what_is_wanted_and_no_more(name, wanted):
    op, x_shape, w_shape = OPERATIONS[name]
    x, w, b = random(x_shape, 0), random(w_shape, 1), random(w_shape, 3)
    y = random(tuple(op.apply(x, w).shape), 2)
    sums = y.flatten(0, -2).sum(0) if isinstance(op, Dense) else y.transpose(0, 1).flatten(1).sum(1)
    for got, want, expected in zip(
        op.backward(y, x, b, wanted), wanted, (op.adjoint(y, b, x), op.outer(x, y, w), sums), strict=True
    ):
        if want:
            torch.testing.assert_close(got, expected, rtol=1e-12, atol=1e-12)
        else:
            assert got is None


@pytest.mark.parametrize("name", OPERATIONS)
def test_positions_counts_uses_of_one_weight_entry(name):
    op, x_shape, w_shape = OPERATIONS[name]
    # With kernels of one entry and no padding, a weight entry meets each position once; strides tell x's from y's.
    if isinstance(op, Convolution):
        dims = len(op.stride)
        ones = (1,) * dims
        op = Convolution((2,) * dims, (0,) * dims, ones, op.transposed, groups=op.groups)
        w_shape = (*w_shape[:2], *ones)
    x, w = torch.ones(x_shape, dtype=torch.float64), torch.ones(w_shape, dtype=torch.float64)
    y = op.apply(x, w)
    met = op.outer(x, torch.ones_like(y), w).flatten()[0].item()
    assert op.positions(x, y) * x.shape[0] == met


@pytest.mark.parametrize(
    ("op", "w_shape", "x_shape"),
    [
        (Dense(), (4, 3), (1, 3)),
        (Convolution((1, 1), (0, 0), (1, 1)), (2, 3, 3, 2), (1, 3, 5, 5)),
        (Convolution((2,), (0,), (2,), groups=2), (4, 3, 3), (1, 6, 9)),
        (Convolution((2, 2), (0, 0), (1, 1), True), (3, 2, 4, 4), (1, 3, 5, 5)),
        (Convolution((2,), (0,), (1,), True, groups=3), (6, 2, 2), (1, 6, 4)),
    ],
)
def test_fan_in_counts_the_inputs_of_one_output(op, w_shape, x_shape):
    ones = torch.ones(w_shape, dtype=torch.float64)
    inputs = (matrix(op, torch.ones(x_shape, dtype=torch.float64), ones) != 0).sum(1)
    assert op.fan_in(ones) == inputs.max().item()
