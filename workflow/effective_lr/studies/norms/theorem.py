"""A Monte Carlo of the reported theorems in the linear model: a fixed design, many draws of skewed noise.

The estimator minimizes (1/n)‖y − Xb‖² + λ1·b'Cb + λ2·‖b‖² + γ‖b‖₁ with C = S + δI and strengths that fall with n.
Theorem 5.1 (Covridge, γ = 0): closed forms of mean and covariance. Theorem 5.2 (Sparridge, λ2 = 0): √n(b − β) is drawn
as the minimizer of the limit V (theory.py). Both sides have their own draws.
"""

from typing import Any

import numpy as np

import effective_lr.studies.norms.theory as theory  # not from the package, whose words decide no result
from effective_lr.studies.norms.base import Training
from effective_lr.studies.norms.data import Task
from effective_lr.studies.norms.settings import Arm, Run

Array = np.ndarray
LEVELS = (0.1, 0.25, 0.5, 0.75, 0.9)
NORMAL = (-1.2815515655446004, -0.6744897501960817, 0.0, 0.6744897501960817, 1.2815515655446004)  # their quantiles
TWO_SIDED = 1.6448536269514722  # of 90 %
CHUNK = 500  # draws of noise at once
EXPONENT = {"root": -0.5, "slow": -0.25}  # of n in the strengths


class TheoremTraining(Training):
    """One step, which is all."""

    def __init__(self, run: Run, task: Task | None) -> None:
        super().__init__(run, task)
        self.steps = 1

    def advance(self) -> None:
        run = self.run
        self.step += 1
        self.examples += run.walkers * run.train_size
        random = np.random.default_rng(run.seed)
        n, p, draws = run.train_size, run.inputs, run.walkers
        shared = random.normal(size=(n, 1))
        x = np.sqrt(run.rho) * shared + np.sqrt(1 - run.rho) * random.normal(size=(n, p))
        x = (x - x.mean(0)) / x.std(0)
        beta = np.where(np.arange(p) < p // 2, np.resize([2.0, -1.0, 1.0, -0.5], p), 0.0)
        s = x.T @ x / n
        c = s + run.delta * np.eye(p)
        z, variance = np.empty((draws, p)), np.empty(draws)  # X'ε/√n, and what residuals say of σ²
        for start in range(0, draws, CHUNK):
            count = min(CHUNK, draws - start)
            noise = run.noise * (random.exponential(size=(count, n)) - 1)
            mine = slice(start, start + count)
            z[mine] = noise @ x / np.sqrt(n)
            fitted = np.einsum("ij,ij->i", z[mine], np.linalg.solve(s, z[mine].T).T)
            # Targets have no intercept: the mean of the noise stays in the residuals.
            variance[mine] = (np.square(noise).sum(1) - fitted) / (n - p)
        for arm in self.arms:
            if arm.penalty == "covridge":
                self.covridge(arm, s, c, beta, z, variance)
            else:
                self.sparridge(arm, s, c, beta, z, random)

    def strengths(self, arm: Arm) -> tuple[float, float]:
        assert arm.second is not None
        factor = self.run.train_size ** EXPONENT[self.run.scaling]
        return arm.strength * factor, arm.second * factor

    def covridge(self, arm: Arm, s: Array, c: Array, beta: Array, z: Array, variance: Array) -> None:
        """Theorem 5.1: the covariance, and the coverage of 90 % intervals for β after the first-order correction of
        the bias, b + H⁻¹(λ1C + λ2I)b."""
        n, (l1, l2) = self.run.train_size, self.strengths(arm)
        penalty = l1 * c + l2 * np.eye(len(s))
        mean, covariance = theory.covridge_moments(s, penalty, beta, self.run.noise**2, n)
        inverse = np.linalg.inv(s + penalty)
        b = (s @ beta + z / np.sqrt(n)) @ inverse
        found = np.cov(b.T)
        correct = np.eye(len(s)) + inverse @ penalty
        sandwich = correct @ covariance @ correct.T / self.run.noise**2
        errors = np.abs(b @ correct.T - beta) / np.sqrt(np.outer(variance, np.diag(sandwich)))
        self.add(arm, "covariance_error", np.linalg.norm(found - covariance) / np.linalg.norm(covariance))
        self.add(arm, "coverage", np.mean(errors <= TWO_SIDED))
        predicted = (mean - beta)[:, None] + np.outer(np.sqrt(np.diag(covariance)), NORMAL)
        self.compare(arm, np.sqrt(n) * (b - beta), np.sqrt(n) * predicted, np.sqrt(n * np.diag(covariance)))

    def sparridge(self, arm: Arm, s: Array, c: Array, beta: Array, z: Array, random: np.random.Generator) -> None:
        """Theorem 5.2: the probability of an exact zero where β is 0, and quantiles, against minimizers of V."""
        n, (l1, gamma) = self.run.train_size, self.strengths(arm)
        target = s @ beta + z / np.sqrt(n)
        b = theory.lasso_paths(s + l1 * c, target, np.full(len(s), gamma), np.zeros(len(s)))
        limit_z = random.multivariate_normal(np.zeros(len(s)), self.run.noise**2 * s, size=len(z))
        u = theory.sparridge_limit(s, c, beta, limit_z, arm.strength, arm.second or 0.0)
        null = beta == 0
        self.add(arm, "zero_measured", np.mean(b[:, null] == 0))
        self.add(arm, "zero_predicted", np.mean(u[:, null] == 0))
        self.compare(arm, np.sqrt(n) * (b - beta), np.quantile(u, LEVELS, axis=0).T, u.std(0))

    def compare(self, arm: Arm, draws: Array, predicted: Array, deviations: Array) -> None:
        """Quantiles (p, levels) of draws against those predicted; the largest distance in predicted deviations."""
        measured = np.quantile(draws, LEVELS, axis=0).T
        self.add(arm, "quantile_distance", np.max(np.abs(measured - predicted) / deviations[:, None]))
        for j, level in np.ndindex(measured.shape):
            self.add(arm, f"measured_{j}_{level}", measured[j, level])
            self.add(arm, f"predicted_{j}_{level}", predicted[j, level])

    def add(self, arm: Arm, quantity: str, value: Any) -> None:
        self.rows.append((self.step, arm.name, quantity, float(value)))
