"""The data sets that are built in, and arguments that cannot be used."""

import numpy as np
import pytest
import torch

from tests.trainers.data.data_files import fails
from wtdiag.trainers.data import BUILT_IN, load, names


def test_digits_are_scikit_learns_split_by_class():
    from sklearn.datasets import load_digits

    data = load("digits")
    images, targets = load_digits(return_X_y=True)
    ours = torch.cat([data.train.images, data.test.images]).flatten(1).numpy()
    assert sorted(map(bytes, ours)) == sorted(map(bytes, images.astype(np.uint8)))
    key = {image.tobytes(): target for image, target in zip(images.astype(np.uint8), targets, strict=True)}
    for split in (data.train, data.test):
        assert [key[image.numpy().tobytes()] for image in split.images] == split.targets.tolist()
        assert torch.bincount(split.targets).max() - torch.bincount(split.targets).min() <= 8
    x, _ = data.train.batch(torch.arange(len(data.train)))
    assert x.mean().item() == pytest.approx(0, abs=1e-6)
    assert x.std(correction=0).item() == pytest.approx(1, abs=1e-6)


@pytest.mark.parametrize("size", [16, 32])
def test_glyphs_are_distinct_and_the_same_every_time(size):
    data, again = load("glyphs", image_size=size), load("glyphs", image_size=size)
    assert data.shape == (1, size, size)
    assert data.classes == 36
    assert torch.equal(data.train.images, again.train.images)
    train = {image.numpy().tobytes() for image in data.train.images}
    test = {image.numpy().tobytes() for image in data.test.images}
    assert len(train) == len(data.train) == 6048
    assert len(test) == len(data.test) == 1512
    assert not train & test
    for split in (data.train, data.test):
        assert torch.equal(torch.bincount(split.targets), torch.full((36,), len(split) // 36))


def test_glyphs_stay_inside_and_look_like_their_class():
    data = load("glyphs")
    x, y = data.train.images.float(), data.train.targets
    assert x.amax((1, 2, 3)).min() > 100  # no blank image
    border = torch.cat([x[..., 0, :], x[..., -1, :], x[..., :, 0], x[..., :, -1]], -1)
    assert border.mean() < 0.01 * x.amax()
    # The nearest class mean knows many of the test images (chance: 1/36), so labels belong to images.
    means = torch.stack([x[y == c].mean(0) for c in range(36)]).flatten(1)
    guess = torch.cdist(data.test.images.float().flatten(1), means).argmin(1)
    assert (guess == data.test.targets).float().mean() > 0.3


def test_arguments_that_cannot_be_used():
    fails("data: 'cifar' is not known; did you mean 'cifar1", name="cifar")
    fails("image_size: 20 cannot be used, because the images of 'mnist' have one size", name="mnist", image_size=20)
    fails("image_size: 3 is too small", name="glyphs", image_size=3)
    for name in names()[len(BUILT_IN) :]:
        fails(f"data_dir: missing; '{name}' is read from ", name=name)
