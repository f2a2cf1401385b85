"""How far local training on the whole file moves the weights: one clipped vector, which is noised once.

Pitfalls that this file holds shut: what local training computes is not noised, so the weights are back where they were
before anything else can read them, also when it is stopped or fails; no optimiser's state outlives it.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from dpcore import optimise
from dpcore.estimators import Setting
from dpcore.estimators.first_order import FirstOrder
from dpcore.mechanism.clipping import ClippedSum
from dpcore.mechanism.delta import clipped
from dpcore.mechanism.keystream import Keystream
from dpcore.mechanism.sampling import poisson
from dpcore.terms.estimators import Delta as DeltaTerms
from dpcore.terms.estimators import FirstOrder as FirstOrderTerms
from dpcore.terms.mechanisms import PoissonGaussian
from dpcore.terms.program import Phase


class Delta:
    """An `Estimator`. Local training takes the sums of the first order: each unit's gradient is scaled to about one,
    which bounds how far a step goes and is not what the guarantee rests on."""

    def __init__(self, setting: Setting) -> None:
        assert isinstance(setting.phase.estimator, DeltaTerms)
        self._terms = setting.phase.estimator
        self._local = _local(setting.phase, self._terms)
        self._within = FirstOrder(replace(setting, phase=self._local))
        self.parameters, self.units, self.dtype = self._within.parameters, self._within.units, self._within.dtype
        self.rehearse, self.enter, self.leave = self._within.rehearse, self._within.enter, self._within.leave

    def sum(self, drawn: np.ndarray, clip_norm: float, directions: Callable[[], Keystream]) -> ClippedSum:
        """The clipped delta of local training on the whole file, which draws of its own by the step's stream."""
        before = {name: p.detach().clone() for name, p in self.parameters.items()}
        try:
            self._train(directions())
            moved = [(p.detach().double() - before[name]).flatten() for name, p in self.parameters.items()]
        finally:
            with torch.no_grad():
                for name, p in self.parameters.items():
                    p.copy_(before[name])
        return clipped(torch.cat(moved), clip_norm)

    def _train(self, stream: Keystream) -> None:
        """Local training, unnoised, on the weights themselves."""
        phase, optimiser = self._local, optimise.make(self.parameters, self._local)
        for _ in range(phase.steps):
            drawn = poisson(stream, self.units, phase.mechanism.sample_rate)
            total = self._within.sum(drawn, phase.clip_norm, lambda: stream)
            mean = (total.value / phase.expected_batch).to(self.dtype)
            optimise.step(optimiser, self.parameters, self._within.gradients(mean), phase=phase, done=0, deviation=0.0)

    def gradients(self, mean: Tensor) -> Iterator[Mapping[str, Tensor]]:
        """The noised delta, turned: a step of plain descent with rate one adds it."""
        parts = torch.split(-mean, [p.numel() for p in self.parameters.values()])
        named = zip(self.parameters.items(), parts, strict=True)
        yield {name: part.view(p.shape) for (name, p), part in named}


def _local(phase: Phase, terms: DeltaTerms) -> Phase:
    """Of local training. Its mechanism says how it draws; by its noise nothing is noised."""
    changes = {
        "estimator": FirstOrderTerms(),
        "mechanism": PoissonGaussian(sample_rate=terms.sample_rate, noise_multiplier=1.0),
        "steps": terms.local_steps,
        "clip_norm": 1.0,
        "clipping": "automatic",
        "expected_batch": terms.batch_size,
        "optimizer": "sgd",
        "betas": (0.0, 0.999),
        "learning_rate": terms.learning_rate,
    }
    return phase.model_copy(update=changes)


make = Delta
