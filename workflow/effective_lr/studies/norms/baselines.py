"""The models of scikit-learn, with our strengths in their words.

With n samples: RidgeCV alpha = n·l2; ElasticNetCV alpha·l1_ratio = l1/2 and alpha·(1 − l1_ratio) = l2;
LogisticRegressionCV C = 1/(2·n·l2); MLPRegressor alpha = b·l2, where b is its mini-batch (its loss is half of ours).
They choose their strengths by cross-validation inside the training samples. Inputs and target are standardized as ours
are.
"""

import warnings
from collections.abc import Callable, Iterator

import numpy as np
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import ElasticNetCV, LogisticRegressionCV, RidgeCV
from sklearn.neural_network import MLPRegressor

Array = np.ndarray
STRENGTHS = np.geomspace(1e-4, 10, 11)
ELASTIC_RATIO = 0.5
FOLDS = 5


def ridge(x: Array, y: Array) -> tuple[Callable[[Array], Array], Array]:
    model = RidgeCV(alphas=len(y) * STRENGTHS, cv=min(FOLDS, len(y))).fit(x, y)
    return model.predict, model.coef_


def elastic_net(x: Array, y: Array) -> tuple[Callable[[Array], Array], Array]:
    """Half of the strength in each part: l1 = l2 gives alpha = 1.5·l2 with l1_ratio = 1/3."""
    model = ElasticNetCV(alphas=1.5 * STRENGTHS, l1_ratio=1 / 3, cv=min(FOLDS, len(y)), max_iter=5_000).fit(x, y)
    return model.predict, model.coef_


def mlp(
    x: Array, y: Array, l2: float, hidden: int, batch: int, epochs: int, seed: int
) -> tuple[Callable[[Array], Array], Array]:
    """A ReLU network of the same size, by Adam, at a given l2: the one that validation has chosen for our own l2
    arm."""
    model = MLPRegressor(
        hidden_layer_sizes=(hidden,),
        alpha=batch * l2,
        batch_size=batch,
        learning_rate_init=0.01,
        max_iter=epochs,
        random_state=seed % 2**32,
    ).fit(x, y)
    return model.predict, model.coefs_[0]


def logistic(x: Array, y: Array, seed: int) -> tuple[Callable[[Array], Array], Array]:
    """l2-penalised log-loss; the result of `predict` is the log-odds. Its folds are stratified."""
    least = int(np.bincount(y.astype(int)).min())
    model = LogisticRegressionCV(
        Cs=1 / (2 * len(y) * np.geomspace(1e-3, 10, 5)),
        cv=min(3, least),
        l1_ratios=(0,),
        scoring="neg_log_loss",
        use_legacy_attributes=False,
        max_iter=500,
    ).fit(x, y)
    return model.decision_function, model.coef_[0]


def regressions(
    x: Array, y: Array, l2: float, hidden: int, batch: int, epochs: int, seed: int
) -> Iterator[tuple[str, Callable[[Array], Array], Array]]:
    """(name, predict, weights) of each model for a numerical target."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        yield "ridge-cv", *ridge(x, y)
        yield "elastic-net-cv", *elastic_net(x, y)
        yield "mlp", *mlp(x, y, l2, hidden, batch, epochs, seed)
