"""Probe batches that are taken from a training's own data."""

import random
import warnings

import numpy as np
import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, Dataset, IterableDataset, RandomSampler, Subset, TensorDataset

from wtdiag import open_run, transport_free
from wtdiag.trainers.callbacks.probe_examples import EXAMPLES, library_hook, probe_examples

MODEL = transport_free(nn.Sequential(nn.Linear(2, 3)), "fa")
ROWS = torch.arange(200.0).reshape(100, 2), torch.arange(100) % 3


class Noisy(Dataset):
    """A data set that draws from every kind of random numbers, its own and the global ones."""

    def __init__(self):
        self.torch, self.numpy = torch.Generator().manual_seed(1), np.random.default_rng(2)
        self.old, self.python = np.random.RandomState(3), random.Random(4)
        self.transforms = [Shift(np.random.default_rng(5))]

    def __len__(self):
        return 40

    def __getitem__(self, index):
        drawn = (
            torch.rand(1, generator=self.torch).item() + self.numpy.random() + self.old.rand() + self.python.random()
        )
        drawn += torch.rand(1).item() + np.random.rand() + random.random()  # noqa: NPY002
        return self.transforms[0](torch.tensor([index, drawn])), index % 3


class Shift:
    def __init__(self, generator):
        self.generator = generator

    def __call__(self, x):
        return x + self.generator.random()


@pytest.mark.parametrize("wrapped", [False, True])
def test_the_training_sees_the_same_examples_in_the_same_order(wrapped):
    def epoch(taken):
        torch.manual_seed(0)
        np.random.seed(0)  # noqa: NPY002
        random.seed(0)
        data = Subset(Noisy(), range(3, 33)) if wrapped else Noisy()
        loader = DataLoader(data, 8, sampler=RandomSampler(data, generator=torch.Generator().manual_seed(6)))
        if taken:
            inputs, targets = probe_examples(MODEL, loader)
            assert (inputs.shape, targets.shape) == ((len(data), 2), (len(data),))
        return list(loader)

    torch.testing.assert_close(epoch(taken=True), epoch(taken=False), rtol=0, atol=0)


def test_the_sample_is_the_same_each_time_and_not_the_first_examples_of_sorted_data():
    data = TensorDataset(torch.arange(1000.0)[:, None], torch.arange(1000) // 100)
    x, y = probe_examples(MODEL, DataLoader(data, 10, shuffle=True))
    again, _ = probe_examples(MODEL, DataLoader(data, 7, drop_last=True))
    assert torch.equal(x, again)
    assert len(x) == len(x.unique()) == EXAMPLES
    assert len(y.unique()) == 10


@pytest.mark.parametrize("label", ["labels", "label"])
def test_named_inputs_are_taken_without_their_labels(label):
    rows = [{"x": x, "note": "text", label: y} for x, y in zip(*ROWS, strict=True)]
    inputs, targets = probe_examples(MODEL, DataLoader(rows, 4))
    assert list(inputs) == ["x"]
    assert torch.equal(inputs["x"][:, 0] // 2 % 3, targets.float())


class Stream(IterableDataset):
    def __iter__(self):
        yield from zip(*ROWS, strict=True)


class Failing(Dataset):
    def __len__(self):
        return 3

    def __getitem__(self, index):
        raise OSError("no such file\nand more")


@pytest.mark.parametrize(
    ("loader", "said"),
    [
        (DataLoader(Stream(), 4), "TypeError: object of type 'Stream' has no len()"),
        (DataLoader(Failing()), "OSError: no such file"),
        (DataLoader(TensorDataset(*ROWS, ROWS[1])), "expected (inputs, targets), two tensors, got (Tensor, Tensor, Te"),
        (DataLoader([{"x": ROWS[0][0], "y": 1}]), "a batch holds x, y; expected labels or label among them"),
        (DataLoader(TensorDataset(*ROWS), collate_fn=lambda rows: (torch.ones(3, 2), torch.ones(2))), "differ in numb"),
        ([1, 2], "AttributeError: 'list' object has no attribute 'dataset'"),
        (None, "AttributeError: 'NoneType' object"),
    ],
)
def test_data_without_such_examples_give_one_warning(loader, said):
    with pytest.warns(UserWarning, match="no probe batch, so no error signals") as caught:
        assert probe_examples(MODEL, loader) is None
    assert said in str(caught[0].message)
    assert "\n" not in str(caught[0].message)


def test_layers_of_other_code_are_given_no_batch():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert probe_examples(nn.Linear(2, 3), DataLoader(TensorDataset(*ROWS))) is None


@pytest.mark.parametrize("given", [{}, {"probe_batch": (ROWS[0][:7], ROWS[1][:7])}, {"probe_batch": None}])
def test_the_hook_of_a_library_takes_a_probe_batch_unless_one_is_given(tmp_path, given):
    loader = DataLoader(TensorDataset(*ROWS))
    library_hook(MODEL, str(tmp_path / "run"), loader, given).close()
    batch, expected = open_run(tmp_path / "run").probe_batch(), given.get("probe_batch", probe_examples(MODEL, loader))
    assert (batch is None) == (expected is None)
    assert batch is None or all(map(torch.equal, batch, expected))
