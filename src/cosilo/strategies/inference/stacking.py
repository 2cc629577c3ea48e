"""Votes stacked: one regression on what every model says, and on how sure the small one is.

    votes, as 0 and 1 ┐
                      ├─▶ multinomial logistic regression ─▶ P(answer)
    small model, log P ┘

Wolpert, "Stacked Generalization" (Neural Networks 5, 1992).
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import numpy as np

from cosilo.errors import ConfigError
from cosilo.strategies.inference.voting import Ballot, Floats, Ints, arrays_of, normalised


@dataclass(frozen=True, eq=False)
class Stacking:
    """A multinomial logistic regression on votes and view.

    Attributes:
        weights, bias: shapes (labels, features) and (labels,).
    """

    weights: Floats
    bias: Floats

    file: ClassVar[str] = "stacking.npz"

    def posterior(self, ballot: Ballot) -> Floats:
        return normalised(_features(ballot) @ self.weights.T + self.bias)

    def save(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        np.savez(folder / self.file, weights=self.weights, bias=self.bias)

    @classmethod
    def load(cls, folder: Path) -> Stacking:
        """What `save` wrote.

        Raises:
            ConfigError: it is not there, or none.
        """
        held = arrays_of(folder / cls.file, ("weights", "bias"))
        return cls(held["weights"], held["bias"])

    @classmethod
    def fit(cls, ballot: Ballot, targets: Ints) -> Stacking:
        """From items with known answers, shape (items,); the penalty by cross-validation.

        Raises:
            ConfigError: scikit-learn is not installed, or all items have one answer.
        """
        try:
            from sklearn.linear_model import LogisticRegression
            from sklearn.model_selection import GridSearchCV, KFold
        except ImportError:
            raise ConfigError("stacking needs scikit-learn: pip install 'cosilo[local]'") from None
        if len(set(targets.tolist())) < 2:
            raise ConfigError("stacking learns from tune items with at least two different answers")
        search = GridSearchCV(
            LogisticRegression(max_iter=1000),
            {"C": [0.03, 0.1, 0.3, 1.0]},
            scoring="accuracy",
            cv=KFold(min(5, len(targets)), shuffle=True, random_state=0),
        )
        search.fit(_features(ballot), targets)
        fitted = search.best_estimator_
        weights = np.zeros((ballot.labels, fitted.coef_.shape[1]))
        bias = np.full(ballot.labels, -20.0)  # a label that no item has
        if len(fitted.classes_) == 2:
            weights[fitted.classes_] = np.vstack([-fitted.coef_[0], fitted.coef_[0]]) / 2
            bias[fitted.classes_] = np.array([-1, 1]) * fitted.intercept_[0] / 2
        else:
            weights[fitted.classes_], bias[fitted.classes_] = fitted.coef_, fitted.intercept_
        return cls(weights, bias)


def _features(ballot: Ballot) -> Floats:
    known = np.eye(ballot.labels + 2)[ballot.votes]  # ABSENT is the last row
    votes = known[:, :, : ballot.labels + 1].reshape(len(ballot), -1)
    return np.concatenate([votes, np.maximum(ballot.view, -7.0)], axis=1)
