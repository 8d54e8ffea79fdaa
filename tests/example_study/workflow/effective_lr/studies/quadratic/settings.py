"""The settings of one run."""

from pydantic import PositiveInt

from effective_lr.engine.study import BaseRun, PositiveFloat, setting, short


class Run(BaseRun):
    """x ← x − η(x + noise), from x = 0."""

    lr: PositiveFloat = setting("learning rate, η", "ours", lt=2)
    steps: PositiveInt = setting("steps", "ours")

    @property
    def stem(self) -> str:
        return f"sgd-lr_{short(self.lr)}"
