# Copyright 2026 The gad_verl Authors
#
# Licensed under the Apache License, Version 2.0 (the "License");
# you may not use this file except in compliance with the License.
# You may obtain a copy of the License at
#
#     http://www.apache.org/licenses/LICENSE-2.0
#
# Unless required by applicable law or agreed to in writing, software
# distributed under the License is distributed on an "AS IS" BASIS,
# WITHOUT WARRANTIES OR CONDITIONS OF ANY KIND, either express or implied.
# See the License for the specific language governing permissions and
# limitations under the License.
"""Names that verl looks up in the first update on scores, after the whole warmup.

Modules of the user's may register more of them: ``actor_rollout_ref.model.external_lib``, which verl imports in every
process.
"""

from collections.abc import Iterable

from omegaconf import DictConfig

from gad_verl.config import GadConfig
from gad_verl.config.near_keys import did_you_mean
from gad_verl.errors import GadConfigError

_LIBRARIES = "actor_rollout_ref.model.external_lib"
_ESTIMATOR, _LOSS = "algorithm.adv_estimator", "actor_rollout_ref.actor.policy_loss.loss_mode"
_KL_LOSS, _KL_REWARD = "actor_rollout_ref.actor.kl_loss_type", "algorithm.kl_penalty"


def import_libraries(config: DictConfig) -> None:
    """Import what the user registers with verl.

    Raises:
        GadConfigError: It cannot be imported.
    """
    from verl.utils.import_utils import import_external_libs

    libraries = config.actor_rollout_ref.model.get("external_lib", None)
    if not libraries:
        return
    try:
        import_external_libs([libraries] if isinstance(libraries, str) else list(libraries))
    except Exception as error:  # whatever the user's module raises
        text = " ".join(str(error).split())
        raise GadConfigError(f"{_LIBRARIES}={libraries} cannot be imported: {type(error).__name__}: {text}") from error


def check_names(config: DictConfig, gad_config: GadConfig) -> None:
    """Check that verl knows the estimator, the policy loss and the kinds of KL, after :func:`import_libraries`.

    Raises:
        GadConfigError: Names the key, and what there is.
    """
    from verl.trainer.ppo.core_algos import ADV_ESTIMATOR_REGISTRY, POLICY_LOSS_REGISTRY

    import gad_verl.trainer.estimators  # noqa: F401  registers gad_process

    if gad_config.stage not in ("auto", "gad"):
        return
    actor, algorithm = config.actor_rollout_ref.actor, config.algorithm
    _look_up(_ESTIMATOR, str(algorithm.adv_estimator), ADV_ESTIMATOR_REGISTRY)
    _look_up(_LOSS, str(actor.policy_loss.get("loss_mode", "vanilla")), POLICY_LOSS_REGISTRY)
    if actor.use_kl_loss:
        _check_kl(_KL_LOSS, str(actor.kl_loss_type))
    if algorithm.use_kl_in_reward:
        _check_kl(_KL_REWARD, str(algorithm.kl_penalty))


def _look_up(key: str, name: str, known: Iterable[str]) -> None:
    names = sorted(map(str, known))
    if name not in names:
        raise GadConfigError(f"{key}={name}: verl has {', '.join(names)}.{did_you_mean(name, names)}")


def _check_kl(key: str, kind: str) -> None:
    import torch
    from verl.trainer.ppo.core_algos import kl_penalty

    nothing = torch.zeros(1, 1)
    try:
        kl_penalty(nothing, nothing, kind)
    except NotImplementedError:
        raise GadConfigError(
            f"{key}={kind}: verl has no such estimate of the KL divergence; it has kl (k1), abs, mse (k2) and "
            "low_var_kl (k3), each also with a + behind it"
        ) from None
