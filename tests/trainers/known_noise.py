"""Noise of rules that follows from what a layer sees, so that every program and process draws the same."""

from wtdiag.trainers.rules.local import Local


def mirrored(self, noise, std):
    """A mirror phase whose noise is a function of the example, so that it can be compared."""
    x = (7 * self.x).sin()
    y = self.op.apply(x, self.weight.to(x.dtype))
    return Local(self.op, x, self.feedback, self.positions, y, self.weight, batch_axis=self.batch_axis)


def drawn(self, x):
    """The same for noise in a forward pass."""
    return self.noise_std * (7 * x).sin()


def driven_back(self, noise, std, like=None):
    """The same for noise at the output."""
    y = (7 * self.op.apply(self.x, self.weight.to(self.x.dtype))).sin()
    return Local(self.op, self.x, self.feedback, self.positions, y, self.weight, batch_axis=self.batch_axis)
