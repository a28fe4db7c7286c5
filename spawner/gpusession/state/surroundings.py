"""What a notebook relies on beside its variables: folder, environment, random states, options.

Each is one `Surrounding`: `capture` returns a value (None: nothing to carry), `restore` puts it back.
The early ones are restored before anything is unpickled, because imports depend on them; random
states come last, because whatever is loaded may draw from them. What fails is named in a verdict.
"""

from __future__ import annotations

import contextlib
import decimal
import linecache
import locale
import os
import random
import re
import sys
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gpusession.state import exclusions, frameworks, notebook, replay_ledger

_PLACE = re.compile(
    r"^(JPY_|JUPYTERHUB_|JUPYTER_|GPUHUB_|CUDA_VISIBLE_DEVICES$|CUDA_DEVICE_ORDER$|NVIDIA_|HOSTNAME$|_$|PWD$|OLDPWD$"
    r"|SHLVL$|LD_PRELOAD$|XDG_RUNTIME_DIR$|TMPDIR$|KUBERNETES_|MPLBACKEND$|PYDEVD_|PYTEST_)"
)
"""Variables that say where a process runs: they belong to the place and stay with it."""


@dataclass(frozen=True)
class Surrounding:
    """``title``: how a verdict calls it."""

    name: str
    title: str
    capture: Callable[[Any], Any]
    restore: Callable[[Any, Any], None]


# --- early


def _capture_folder(_shell: Any) -> Any:
    return os.getcwd()


def _restore_folder(_shell: Any, saved: Any) -> None:
    os.chdir(saved)


def _environment_at_start() -> dict[str, str]:
    try:
        raw = Path("/proc/self/environ").read_bytes()
    except OSError:
        return dict(os.environ)
    pairs = (os.fsdecode(one).partition("=") for one in raw.split(b"\0") if one)
    return {name: value for name, _, value in pairs}


def _capture_environment(_shell: Any) -> Any:
    start, now = _environment_at_start(), dict(os.environ)
    changed = {name: value for name, value in now.items() if start.get(name) != value}
    gone = [name for name in start if name not in now]
    return {
        "changed": {name: value for name, value in changed.items() if not _PLACE.match(name)},
        "gone": [name for name in gone if not _PLACE.match(name)],
    }


def _restore_environment(_shell: Any, saved: Any) -> None:
    for name in saved["gone"]:
        os.environ.pop(name, None)
    os.environ.update(saved["changed"])
    if "TZ" in (*saved["changed"], *saved["gone"]):
        time.tzset()


def _capture_path(_shell: Any) -> Any:
    return list(sys.path)


def _restore_path(_shell: Any, saved: Any) -> None:
    sys.path[:] = saved


EARLY = (
    Surrounding("folder", "the working directory", _capture_folder, _restore_folder),
    Surrounding("environment", "environment variables", _capture_environment, _restore_environment),
    Surrounding("path", "sys.path", _capture_path, _restore_path),
)

# --- late


def _capture_recursion(_shell: Any) -> Any:
    return sys.getrecursionlimit()


def _restore_recursion(_shell: Any, saved: Any) -> None:
    sys.setrecursionlimit(saved)


def _capture_warnings(_shell: Any) -> Any:
    return list(warnings.filters)


def _restore_warnings(_shell: Any, saved: Any) -> None:
    warnings.filters[:] = saved  # type: ignore[index]
    warnings._filters_mutated()  # type: ignore[attr-defined]


def _capture_decimal(_shell: Any) -> Any:
    return decimal.getcontext().copy()


def _restore_decimal(_shell: Any, saved: Any) -> None:
    decimal.setcontext(saved)


def _capture_numpy(_shell: Any) -> Any:
    np = sys.modules.get("numpy")
    if np is None or not hasattr(np, "get_printoptions"):
        return None
    options = {name: value for name, value in np.get_printoptions().items() if name != "override_repr"}
    return {"print": options, "errors": np.geterr()}


def _restore_numpy(_shell: Any, saved: Any) -> None:
    import numpy as np

    np.set_printoptions(**saved["print"])
    np.seterr(**saved["errors"])


def _capture_pandas(_shell: Any) -> Any:
    config = sys.modules.get("pandas._config.config")
    if config is None:
        return None
    return {
        key: config.get_option(key)
        for key, known in dict(config._registered_options).items()
        if key not in config._deprecated_options and config.get_option(key) != known.defval
    }


def _restore_pandas(_shell: Any, saved: Any) -> None:
    import pandas as pd

    for key, value in saved.items():
        pd.set_option(key, value)


def _capture_matplotlib(_shell: Any) -> Any:
    mpl = sys.modules.get("matplotlib")
    if mpl is None or not hasattr(mpl, "rcParams"):
        return None
    params = {key: value for key, value in dict.items(mpl.rcParams) if key != "backend"}
    pyplot = sys.modules.get("matplotlib.pyplot")
    interactive = bool(mpl.is_interactive())
    backend = dict.get(mpl.rcParams, "backend") if pyplot is not None else None
    return {
        "params": params,
        "interactive": interactive,
        "backend": backend if isinstance(backend, str) else None,
    }


def _restore_matplotlib(_shell: Any, saved: Any) -> None:
    import matplotlib as mpl

    if saved["backend"] is not None:
        import matplotlib.pyplot as plt

        if dict.get(mpl.rcParams, "backend") != saved["backend"]:
            plt.switch_backend(saved["backend"])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        mpl.rcParams.update(saved["params"])
    mpl.interactive(saved["interactive"])


def _capture_figures(_shell: Any) -> Any:
    """The figures that pyplot knows, in its order: the last one is the current one."""
    helpers = sys.modules.get("matplotlib._pylab_helpers")
    if helpers is None or not helpers.Gcf.figs:
        return None
    return [(number, manager.canvas.figure) for number, manager in helpers.Gcf.figs.items()]


def _restore_figures(_shell: Any, saved: Any) -> None:
    import matplotlib._pylab_helpers as helpers
    import matplotlib.pyplot as plt

    for number, figure in saved:
        if number in helpers.Gcf.figs:
            plt.close(number)
        manager = plt._get_backend_mod().new_figure_manager_given_figure(number, figure)
        helpers.Gcf._set_new_active_manager(manager)


def _capture_logging(_shell: Any) -> Any:
    import logging

    found = []
    loggers: list[Any] = [logging.getLogger(), *list(logging.Logger.manager.loggerDict.values())]
    for logger in loggers:
        if not isinstance(logger, logging.Logger):
            continue
        mine = [one for one in logger.handlers if _is_the_persons(one)]
        usual = logging.WARNING if logger is logging.getLogger() else logging.NOTSET
        if logger.level != usual or not logger.propagate or logger.disabled or mine:
            found.append((logger.name, logger.level, logger.propagate, logger.disabled, mine))
    return found or None


def _is_the_persons(handler: Any) -> bool:
    import logging

    kind = type(handler)
    return kind.__module__ == "__main__" or kind in (logging.StreamHandler, logging.FileHandler)


def _restore_logging(_shell: Any, saved: Any) -> None:
    import logging

    for name, level, propagate, disabled, handlers in saved:
        logger = logging.getLogger() if name == "root" else logging.getLogger(name)
        logger.setLevel(level)
        logger.propagate, logger.disabled = propagate, disabled
        for handler in list(logger.handlers):
            if _is_the_persons(handler) and handlers:
                logger.removeHandler(handler)
        for handler in handlers:
            logger.addHandler(handler)
            if handler not in [ref() for ref in logging._handlerList]:  # type: ignore[attr-defined]
                logging._addHandlerRef(handler)  # type: ignore[attr-defined]


def _capture_history(shell: Any) -> Any:
    return notebook.capture_history(shell)


def _restore_history(shell: Any, saved: Any) -> None:
    notebook.restore_history(shell, saved, shell.execution_count)


def _capture_hidden(shell: Any) -> Any:
    return notebook.hidden_names(shell) or None


def _restore_hidden(shell: Any, saved: Any) -> None:
    for name in saved:
        if name in shell.user_ns:
            shell.user_ns_hidden[name] = shell.user_ns[name]


def _capture_sources(shell: Any) -> Any:
    """The text of cells, by the file name that their code has: for tracebacks and `inspect.getsource`."""
    names = dict(getattr(shell.compile, "_filename_map", {}))
    lines = {name: linecache.cache[name] for name in names if name in linecache.cache}
    return {"names": names, "lines": lines} if names else None


def _restore_sources(shell: Any, saved: Any) -> None:
    for name, entry in saved["lines"].items():
        linecache.cache.setdefault(name, entry)
    with contextlib.suppress(AttributeError):
        for name, number in saved["names"].items():
            shell.compile._filename_map.setdefault(name, number)


def _capture_random(_shell: Any) -> Any:
    states: dict[str, Any] = {"python": random.getstate()}
    numpy_random = sys.modules.get("numpy.random")
    if numpy_random is not None and hasattr(numpy_random, "get_state"):
        states["numpy"] = numpy_random.get_state(legacy=False)
    return states


def _restore_random(_shell: Any, saved: Any) -> None:
    random.setstate(saved["python"])
    if "numpy" in saved:
        import numpy as np

        np.random.set_state(saved["numpy"])


def _capture_interpreter(_shell: Any) -> Any:
    return {
        "digits": sys.get_int_max_str_digits(),
        "switch": sys.getswitchinterval(),
        "timeout": sys.modules["socket"].getdefaulttimeout() if "socket" in sys.modules else None,
        "locale": locale.setlocale(locale.LC_ALL),
    }


def _restore_interpreter(_shell: Any, saved: Any) -> None:
    sys.set_int_max_str_digits(saved["digits"])
    sys.setswitchinterval(saved["switch"])
    if saved["timeout"] is not None:
        import socket

        socket.setdefaulttimeout(saved["timeout"])
    if locale.setlocale(locale.LC_ALL) != saved["locale"]:
        locale.setlocale(locale.LC_ALL, saved["locale"])


def _capture_sklearn(_shell: Any) -> Any:
    sklearn = sys.modules.get("sklearn")
    return sklearn.get_config() if sklearn is not None and hasattr(sklearn, "get_config") else None


def _restore_sklearn(_shell: Any, saved: Any) -> None:
    import sklearn

    known = sklearn.get_config()
    sklearn.set_config(**{name: value for name, value in saved.items() if name in known})


LATE = (
    Surrounding("interpreter", "settings of Python", _capture_interpreter, _restore_interpreter),
    Surrounding("sklearn", "scikit-learn's settings", _capture_sklearn, _restore_sklearn),
    Surrounding("torch", "PyTorch's settings", frameworks.capture_torch, frameworks.restore_torch),
    Surrounding("recursion", "the recursion limit", _capture_recursion, _restore_recursion),
    Surrounding("warnings", "warning filters", _capture_warnings, _restore_warnings),
    Surrounding("decimal", "the decimal context", _capture_decimal, _restore_decimal),
    Surrounding("numpy", "NumPy's print options", _capture_numpy, _restore_numpy),
    Surrounding("pandas", "pandas options", _capture_pandas, _restore_pandas),
    Surrounding("matplotlib", "matplotlib settings", _capture_matplotlib, _restore_matplotlib),
    Surrounding("figures", "pyplot's figures", _capture_figures, _restore_figures),
    Surrounding("logging", "log settings", _capture_logging, _restore_logging),
    Surrounding("hidden", "hidden names", _capture_hidden, _restore_hidden),
    Surrounding("sources", "the text of cells", _capture_sources, _restore_sources),
    Surrounding("history", "the history", _capture_history, _restore_history),
    Surrounding("replay", "what cells made", replay_ledger.capture, replay_ledger.restore),
    Surrounding("excluded", "your exclusions", exclusions.capture, exclusions.restore),
    Surrounding("random", "random states", _capture_random, _restore_random),
    Surrounding("jax", "JAX's settings", frameworks.capture_jax, frameworks.restore_jax),
    Surrounding(
        "tensorflow",
        "TensorFlow's random state",
        frameworks.capture_tensorflow,
        frameworks.restore_tensorflow,
    ),
    Surrounding("keras", "Keras' settings", frameworks.capture_keras, frameworks.restore_keras),
    Surrounding(
        "torch-random",
        "PyTorch's random states",
        frameworks.capture_torch_random,
        frameworks.restore_torch_random,
    ),
)
ALL = {one.name: one for one in (*EARLY, *LATE)}
