"""The callbacks of Lightning, Hugging Face's Trainer and skorch, each in a fit by the library itself."""

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, TensorDataset

from wtdiag import analyze, diagnose, open_run, transport_free
from wtdiag.trainers.observe.attribution import attribution
from wtdiag.trainers.observe.inputs import cross_entropy
from wtdiag.trainers.observe.tracer import error_signals

X = torch.linspace(-1, 1, 96 * 4).reshape(96, 4).sin()
Y = torch.arange(96) % 3


def network():
    torch.manual_seed(0)
    return transport_free(nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 3)), "kp")


def check(run, network, steps, prefix):
    """The last snapshot holds the trained weights, and the run is explained."""
    assert run.steps.tolist() == [0, *steps]
    assert run.config["status"] == "finished"
    layer = run.layer(f"{prefix}2")
    np.testing.assert_array_equal(layer.forward.values[-1], network[2].weight.detach().cpu())
    assert not np.array_equal(layer.forward.values[0], layer.forward.values[-1])
    assert diagnose(run.path, analyze(run, ["weight_angle", "norm_ratio"]))


def check_signals(run, model, data):
    """The probe batch is 64 different examples of the data, and the signals of every layer are measured on it."""
    inputs, targets = run.probe_batch()
    rows = inputs["x"] if isinstance(inputs, dict) else inputs
    drawn = (rows[:, None] == data).all(2)
    assert drawn.sum(1).tolist() == [1] * 64
    assert torch.equal(Y[drawn.int().argmax(1)], targets)
    assert len(drawn.int().argmax(1).unique()) == 64
    found = analyze(run, ["error_angle", "credit_angle"], model=model)
    assert found.error_angle.notnull().all()
    assert found.credit_angle.notnull().all()


# Their libraries warn of their own affairs.
@pytest.mark.filterwarnings("default")
def test_fits_by_lightning_transformers_and_skorch_are_recorded(tmp_path, monkeypatch):
    # In one test, so that one process imports them, which takes seconds.
    monkeypatch.chdir(tmp_path)
    with_lightning(tmp_path)
    with_transformers(tmp_path)
    with_skorch(tmp_path)


def with_lightning(tmp_path):
    import lightning.pytorch as pl

    from wtdiag.trainers.callbacks.for_lightning import LightningCallback

    class Module(pl.LightningModule):
        def __init__(self):
            super().__init__()
            self.net = network()

        def forward(self, x):
            return self.net(x)

        def training_step(self, batch, index):
            return F.cross_entropy(self(batch[0]), batch[1])

        def validation_step(self, batch, index):
            right = (self(batch[0]).argmax(1) == batch[1]).float().mean()
            self.log("validation_accuracy", right)

        def configure_optimizers(self):
            return torch.optim.SGD(self.parameters(), 0.1)

    module = Module()
    data = DataLoader(TensorDataset(X, Y), batch_size=8)
    callback = LightningCallback("runs/lightning", every=4)
    trainer = pl.Trainer(
        max_epochs=2, accumulate_grad_batches=2, callbacks=[callback], logger=False, enable_progress_bar=False,
        enable_model_summary=False, enable_checkpointing=False, accelerator="cpu",
    )  # fmt: skip
    trainer.fit(module, data, data)
    run = open_run(tmp_path / "runs" / "lightning")
    check(run, module.net, [4, 8, 12], "net.")  # 12 batches an epoch, two for each step of the optimiser
    assert run.metrics.loss.dropna().size >= 2
    assert run.metrics.validation_accuracy.dropna().size == 2
    check_signals(run, module, X)

    class Manual(Module):
        """Takes its steps itself: two optimisers for each batch, in every second batch."""

        def __init__(self):
            super().__init__()
            self.automatic_optimization = False

        def training_step(self, batch, index):
            loss = super().training_step(batch, index)
            self.manual_backward(loss)
            for optimizer in self.optimizers() if index % 2 else ():
                optimizer.step()
                optimizer.zero_grad()

        def configure_optimizers(self):
            return [torch.optim.SGD(layer.parameters(), 0.1) for layer in (self.net[0], self.net[2])]

    trainer = pl.Trainer(
        max_epochs=1, callbacks=[LightningCallback("runs/manual", every=4)], logger=False, accelerator="cpu",
        enable_progress_bar=False, enable_model_summary=False, enable_checkpointing=False,
    )  # fmt: skip
    trainer.fit(Manual(), data)
    run = open_run(tmp_path / "runs" / "manual")
    assert (run.config["status"], run.steps.tolist()) == ("finished", [0, 4, 6])

    class Broken(Module):
        def training_step(self, batch, index):
            if index == 6:
                raise RuntimeError("as planned")
            return super().training_step(batch, index)

    trainer = pl.Trainer(
        max_epochs=2, callbacks=[LightningCallback("runs/broken", every=2)], logger=False, accelerator="cpu",
        enable_progress_bar=False, enable_model_summary=False, enable_checkpointing=False,
    )  # fmt: skip
    with pytest.raises(RuntimeError, match="as planned"):
        trainer.fit(Broken(), data)
    run = open_run(tmp_path / "runs" / "broken")
    assert (run.config["status"], run.steps.tolist()) == ("interrupted", [0, 2, 4, 6])


def with_transformers(tmp_path):
    from transformers import Trainer, TrainingArguments

    from wtdiag.trainers.callbacks.for_transformers import TransformersCallback

    class Model(nn.Module):
        def __init__(self):
            super().__init__()
            self.net = network()

        def forward(self, x, mask, labels=None):
            logits = self.net(x * mask)
            return {"logits": logits} | ({} if labels is None else {"loss": F.cross_entropy(logits, labels)})

    model = Model()
    arguments = TrainingArguments(
        output_dir="out", max_steps=6, per_device_train_batch_size=8, learning_rate=0.01, logging_steps=2, use_cpu=True,
        report_to=[], save_strategy="no", disable_tqdm=True,
    )  # fmt: skip
    rows = [{"x": x, "mask": (x > -0.5).float(), "labels": y} for x, y in zip(X, Y, strict=True)]
    Trainer(
        model=model, args=arguments, train_dataset=rows, callbacks=[TransformersCallback("runs/transformers", every=3)]
    ).train()
    run = open_run(tmp_path / "runs" / "transformers")
    check(run, model.net, [3, 6], "net.")
    logged = run.metrics.dropna(subset="loss")
    assert logged.step.tolist() == [2, 4, 6]
    assert "learning_rate" in run.metrics
    # Examples of the Trainer's own data are the probe batch, with all that the network takes.
    inputs, labels = run.probe_batch()
    assert inputs.keys() == {"x", "mask"}
    torch.testing.assert_close(inputs["mask"], (inputs["x"] > -0.5).float())
    signals = error_signals(model, inputs, labels, loss=cross_entropy)
    plain = error_signals(model.net, inputs["x"] * inputs["mask"], labels)
    np.testing.assert_array_equal(signals["net.2"]["delta"], plain["2"]["delta"])
    check_signals(run, model, X)
    assert attribution(model, inputs, labels, loss=cross_entropy)["net.2"].angle >= 0


def with_skorch(tmp_path):
    from skorch import NeuralNetClassifier

    from wtdiag.trainers.callbacks.for_skorch import SkorchCallback

    net = NeuralNetClassifier(
        network(), criterion=nn.CrossEntropyLoss, max_epochs=2, lr=0.1, batch_size=16, verbose=0,
        callbacks=[SkorchCallback("runs/skorch", {"every": 5})],
    )  # fmt: skip
    net.fit(X.numpy(), Y.numpy())
    run = open_run(tmp_path / "runs" / "skorch")
    check(run, net.module_, [5, 10], "")  # 76 of 96 examples are trained on, in 5 batches an epoch
    assert run.metrics.validation_accuracy.dropna().size == 2
    assert run.metrics.loss.dropna().size >= 2
    check_signals(run, net.module_, X)
