"""Noise in the shape of each data set: the shape is the true one, and the noise always the same."""

from pathlib import Path

import pytest
import torch

from wtdiag.probes.errors import InputError
from wtdiag.trainers import data
from wtdiag.trainers.data.synthetic import files_found, synthetic


@pytest.mark.parametrize("name", data.BUILT_IN)
def test_it_has_the_shape_of_the_data_it_stands_for(name):
    true, noise = data.load(name), synthetic(name)
    assert (noise.name, noise.shape, noise.classes) == (true.name, true.shape, true.classes)
    for split in ("train", "test"):
        mine, theirs = getattr(noise, split), getattr(true, split)
        assert len(mine) == len(theirs)
        (x, y), (x0, y0) = mine.batch(torch.arange(2)), theirs.batch(torch.arange(2))
        assert (x.shape, x.dtype, y.dtype) == (x0.shape, x0.dtype, y0.dtype)


@pytest.mark.parametrize("name", [name for name in data.names() if name not in ("imagefolder", "npz")])
def test_every_class_is_there_and_nothing_is_held(name):
    noise = synthetic(name)
    assert noise.train.targets.unique().tolist() == list(range(noise.classes))
    held = [value for value in vars(noise.train).values() if isinstance(value, torch.Tensor)]
    assert sum(tensor.nbytes for tensor in held) == 8 * len(noise.train)  # the targets


def test_an_image_depends_on_its_number_alone():
    noise = synthetic("cifar10")
    whole = noise.train.pixels(torch.arange(4), None)
    assert torch.equal(noise.train.pixels(torch.tensor([3, 1]), None), whole[[3, 1]])
    assert whole.dtype == torch.uint8
    assert len({image.numpy().tobytes() for image in whole}) == 4
    assert not torch.equal(noise.test.pixels(torch.tensor([0]), None)[0], whole[0])


def test_it_is_normalised():
    x, _ = synthetic("cifar10").train.batch(torch.arange(100))
    assert x.mean((0, 2, 3)).abs().max() < 0.02
    assert (x.std((0, 2, 3)) - 1).abs().max() < 0.02


def test_sizes_that_may_be_chosen_are():
    assert synthetic("imagenet", 64).shape == (3, 64, 64)
    assert synthetic("glyphs", 24).shape == (1, 24, 24)
    for name, size in (("cifar10", 64), ("imagenet", 4)):
        with pytest.raises(InputError, match=f"image_size: '{name}' cannot have images of {size} pixels"):
            synthetic(name, size)


def test_what_only_files_can_tell_is_refused():
    with pytest.raises(InputError, match="are known only from its files, which are missing"):
        synthetic("imagefolder")
    with pytest.raises(InputError, match="data: 'cifar' is not known; did you mean 'cifar10'"):
        synthetic("cifar")


@pytest.mark.parametrize("name", data.DOWNLOADS + data.FOLDERS)
def test_files_are_found_where_their_reader_looks(name, tmp_path):
    assert not files_found(name, None)
    assert not files_found(name, str(tmp_path))
    with pytest.raises(InputError) as error:
        data.load(name, data_dir=tmp_path)
    first = str(error.value).split(":")[0]
    assert first.startswith(str(tmp_path))
    Path(first).mkdir(parents=True)
    assert files_found(name, str(tmp_path))
