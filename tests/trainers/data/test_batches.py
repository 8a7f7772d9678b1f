"""Batches that can be resumed bitwise, shared among processes, and that change no random numbers."""

import multiprocessing
import random

import numpy as np
import pytest
import torch

from wtdiag.probes.errors import InputError
from wtdiag.probes.records.rundir import Hold
from wtdiag.trainers.data import batch_count, batches, evaluation_batches, hold_out, load
from wtdiag.trainers.data.holdout import Part
from wtdiag.trainers.data.splits import ArraySplit, Augmentation


def draw(count, generator):
    return torch.randint(0, 100, (count,), generator=generator, dtype=torch.uint8)


def small_split(n=23):
    images = torch.arange(n, dtype=torch.uint8).view(n, 1, 1, 1)
    shift = Augmentation(draw, lambda images, draws: images + draws.view(-1, 1, 1, 1))
    return ArraySplit(torch.arange(n), (0.0,), (1.0,), images, shift)


def equal(left, right):
    return all(
        torch.equal(a, b) for one, other in zip(left, right, strict=True) for a, b in zip(one, other, strict=True)
    )


@pytest.mark.parametrize("start", range(7))
def test_resumed_batches_are_bitwise_those_of_the_whole_epoch(start):
    whole = list(batches(small_split(), 4, seed=5, epoch=2))
    assert equal(batches(small_split(), 4, seed=5, epoch=2, start=start), whole[start:])


def test_resumed_batches_from_files(folder):
    split = load("imagefolder", data_dir=folder, image_size=8).train
    whole = list(batches(split, 3, seed=0, epoch=0))
    assert [len(y) for _, y in whole] == [3, 3, 3]  # the tenth image would be a batch of its own
    assert equal(batches(split, 3, seed=0, epoch=0, start=1), whole[1:])


def test_every_example_once_in_an_order_of_each_epoch_and_seed():
    orders = set()
    for seed in range(3):
        for epoch in range(3):
            targets = torch.cat([y for _, y in batches(small_split(), 4, seed=seed, epoch=epoch)])
            assert sorted(targets.tolist()) == list(range(23))
            orders.add(tuple(targets.tolist()))
    assert len(orders) == 9


def test_augmentation_differs_between_batches_and_epochs_and_can_be_switched_off():
    draws = set()
    for epoch in range(2):
        for x, y in batches(small_split(), 4, seed=0, epoch=epoch):
            draws.add(tuple((x.flatten() - y).tolist()))
        for x, y in batches(small_split(), 4, seed=0, epoch=epoch, augment=False):
            assert torch.equal(x.flatten(), y.float())
    assert len(draws) == 12


@pytest.mark.parametrize(
    ("n", "size", "sizes"), [(8, 4, [4, 4]), (9, 4, [4, 4]), (10, 4, [4, 4, 2]), (3, 9, [3]), (2, 1, [1, 1])]
)
def test_only_a_single_left_over_example_is_dropped(n, size, sizes):
    split = small_split(n)
    assert [len(y) for _, y in batches(split, size, seed=0, epoch=0)] == sizes
    assert batch_count(split, size) == len(sizes)
    assert torch.cat([y for _, y in evaluation_batches(split, size)]).tolist() == list(range(n))


def test_evaluation_is_never_augmented():
    x = torch.cat([x for x, _ in evaluation_batches(small_split(), 5)])
    assert x.flatten().tolist() == list(range(23))


def test_global_random_state_is_neither_read_nor_moved(folder):
    def states():
        return random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state().tolist()  # noqa: NPY002

    def run():
        out = [
            *batches(load("digits").train, 500, seed=0, epoch=0),
            *batches(small_split(), 4, seed=0, epoch=0),
        ]
        load("glyphs")
        split = load("imagefolder", data_dir=folder, image_size=8).train
        return out + list(batches(split, 4, seed=0, epoch=0))

    before = states()
    first = run()
    assert states() == before
    torch.manual_seed(99)
    random.seed(99)
    np.random.seed(99)  # noqa: NPY002
    assert equal(run(), first)


def test_batches_go_on_from_epoch_to_epoch():
    epochs = [batch for epoch in (2, 3) for batch in batches(small_split(), 4, seed=5, epoch=epoch)]
    assert equal(batches(small_split(), 4, seed=5, epoch=2, start=4, steps=7), epochs[4:11])


@pytest.mark.parametrize("world", [2, 3])
def test_a_process_takes_its_part_of_each_batch_as_it_is(folder, world):
    for split in (small_split(), load("imagefolder", data_dir=folder, image_size=8).train):
        whole = list(batches(split, 5, seed=1, epoch=2))
        for rank in range(world):
            parts = batches(split, 5, seed=1, epoch=2, part=lambda n, rank=rank: slice(rank, n, world))
            assert equal(parts, [(x[rank::world], y[rank::world]) for x, y in whole])


def test_a_part_without_an_example_has_no_batch():
    assert list(evaluation_batches(Part(torch.arange(0), (0.0,), (1.0,), small_split(), torch.arange(0)), 4)) == []


def test_processes_that_read_files_change_nothing(folder):
    split = load("imagefolder", data_dir=folder, image_size=8).train
    held = hold_out(load("imagefolder", data_dir=folder, image_size=8), 0.4)
    states = torch.get_rng_state(), random.getstate()
    alone = list(batches(split, 3, seed=3, epoch=1, steps=5))
    assert equal(batches(split, 3, seed=3, epoch=1, steps=5, workers=2), alone)
    assert equal(evaluation_batches(held.test, 3, workers=1), evaluation_batches(held.test, 3))
    assert torch.equal(torch.get_rng_state(), states[0])
    assert random.getstate() == states[1]


def test_an_image_that_another_process_cannot_read_is_named_in_one_line(folder):
    path = folder / "train" / "n01" / "3.png"
    path.write_bytes(b"not an image")
    split = load("imagefolder", data_dir=folder, image_size=8).train
    with pytest.raises(InputError, match=f"{path}: cannot be read; expected a whole image file") as caught:
        list(batches(split, 3, seed=0, epoch=0, workers=1))
    assert "\n" not in str(caught.value)


def test_a_reading_process_does_not_hold_the_run(folder, tmp_path):
    before, held = multiprocessing.active_children(), Hold(tmp_path)
    stream = batches(load("imagefolder", data_dir=folder, image_size=8).train, 3, seed=0, epoch=0, steps=9, workers=1)
    next(stream)
    (child,) = [child for child in multiprocessing.active_children() if child not in before]
    held.release()
    Hold(tmp_path).release()  # or it would say that another process is recording there
    stream.close()
    assert not child.is_alive()


def test_batches_refuse_numbers_out_of_range():
    split = small_split()
    for arguments, message in (
        ({"batch_size": 0}, "batch_size: 0"),
        ({"seed": -1}, "seed: -1 is negative"),
        ({"epoch": -1}, "epoch: -1 is negative"),
        ({"start": 7}, "start: 7 is not between 0 and the epoch's 6 batches"),
    ):
        with pytest.raises(InputError, match=message):
            batches(split, **{"batch_size": 4, "seed": 0, "epoch": 0, **arguments})
    with pytest.raises(InputError, match=r"1 training example\(s\) cannot fill a batch"):
        batches(small_split(1), 4, seed=0, epoch=0)
    with pytest.raises(InputError, match="batch_size: -3"):
        evaluation_batches(split, -3)
