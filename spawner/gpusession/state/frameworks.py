"""What large libraries keep beside the variables: random states, settings, counters for names.

Each pair belongs to a `gpusession.state.surroundings.Surrounding`. Promises: a library that the notebook did
not load is not imported; None: there is nothing to carry.
"""

from __future__ import annotations

import sys
from typing import Any


def capture_torch_random(_shell: Any) -> Any:
    torch = sys.modules.get("torch")
    if torch is None or not hasattr(torch, "get_rng_state"):
        return None
    states = {"cpu": torch.get_rng_state().numpy().copy(), "cuda": []}
    if torch.cuda.is_available() and torch.cuda.is_initialized():
        states["cuda"] = [state.numpy().copy() for state in torch.cuda.get_rng_state_all()]
    return states


def restore_torch_random(_shell: Any, saved: Any) -> None:
    import torch

    torch.set_rng_state(torch.from_numpy(saved["cpu"]))
    if torch.cuda.is_available():
        for device, state in enumerate(saved["cuda"][: torch.cuda.device_count()]):
            torch.cuda.set_rng_state(torch.from_numpy(state), device)


def capture_torch(_shell: Any) -> Any:
    torch = sys.modules.get("torch")
    if torch is None or not hasattr(torch, "is_grad_enabled"):
        return None
    return {
        "grad": torch.is_grad_enabled(),
        "dtype": str(torch.get_default_dtype()).removeprefix("torch."),
        "deterministic": torch.are_deterministic_algorithms_enabled(),
        "warn": torch.is_deterministic_algorithms_warn_only_enabled(),
        "cudnn": (torch.backends.cudnn.deterministic, torch.backends.cudnn.benchmark),
        "matmul": torch.get_float32_matmul_precision(),
        "anomaly": torch.is_anomaly_enabled(),
        "print": dict(vars(torch._tensor_str.PRINT_OPTS)),
    }


def restore_torch(_shell: Any, saved: Any) -> None:
    import torch

    torch.set_grad_enabled(saved["grad"])
    torch.set_default_dtype(getattr(torch, saved["dtype"]))
    torch.use_deterministic_algorithms(saved["deterministic"], warn_only=saved["warn"])
    torch.backends.cudnn.deterministic, torch.backends.cudnn.benchmark = saved["cudnn"]
    torch.set_float32_matmul_precision(saved["matmul"])
    torch.autograd.set_detect_anomaly(saved["anomaly"])
    torch.set_printoptions(**saved["print"])


JAX_SETTINGS = (
    "jax_enable_x64",
    "jax_default_matmul_precision",
    "jax_debug_nans",
    "jax_debug_infs",
    "jax_default_prng_impl",
    "jax_numpy_dtype_promotion",
    "jax_numpy_rank_promotion",
    "jax_disable_jit",
)


def capture_jax(_shell: Any) -> Any:
    jax = sys.modules.get("jax")
    if jax is None or not hasattr(jax, "config"):
        return None
    return {name: jax.config.values[name] for name in JAX_SETTINGS if name in jax.config.values}


def restore_jax(_shell: Any, saved: Any) -> None:
    import jax

    for name, value in saved.items():
        if jax.config.values.get(name) != value:
            jax.config.update(name, value)


def capture_tensorflow(_shell: Any) -> Any:
    """The seed, and the generator from which each operation without a seed of its own gets one."""
    eager = sys.modules.get("tensorflow.python.eager.context")
    if eager is None or getattr(eager.context(), "_rng", None) is None:
        return None
    return {"seed": eager.context()._seed, "operations": eager.context()._rng.getstate()}


def restore_tensorflow(_shell: Any, saved: Any) -> None:
    from tensorflow.python.eager import context

    context.set_global_seed(saved["seed"])
    context.context()._rng.setstate(saved["operations"])


def capture_keras(_shell: Any) -> Any:
    """Settings, how often each name was given (``dense_3``), and the state of the common generator."""
    state = sys.modules.get("keras.src.backend.common.global_state")
    keras = sys.modules.get("keras")
    if state is None or keras is None:
        return None
    generator = state.get_global_attribute("global_seed_generator")
    return {
        "names": dict(state.get_global_attribute("object_name_uids") or {}),
        "generator": None
        if generator is None
        else (generator._initial_seed, keras.ops.convert_to_numpy(generator.state)),
        "float": keras.config.floatx(),
        "epsilon": keras.config.epsilon(),
        "format": keras.config.image_data_format(),
        "policy": keras.config.dtype_policy().name,
    }


def restore_keras(_shell: Any, saved: Any) -> None:
    import collections

    import keras
    from keras.src.backend.common import global_state

    keras.config.set_floatx(saved["float"])
    keras.config.set_epsilon(saved["epsilon"])
    keras.config.set_image_data_format(saved["format"])
    keras.config.set_dtype_policy(saved["policy"])
    if saved["generator"] is not None:
        seed, state = saved["generator"]
        generator = keras.random.SeedGenerator(seed, name="global_seed_generator")
        generator.state.assign(state)
        global_state.set_global_attribute("global_seed_generator", generator)
    names = collections.defaultdict(int, saved["names"])
    global_state.set_global_attribute("object_name_uids", names)
