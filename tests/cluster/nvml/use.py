"""How a process uses a GPU of the stand-in: it holds a lock in the folder that its container got for it.

`USE` is Python source for a notebook's cell or a program (nothing of gpuhub is needed there): ``use_gpu()``
opens the GPU and holds it until the process ends or `let_go` is called; what it computes then is its use.
"""

from __future__ import annotations

USE = """
import fcntl, os

def use_gpu(memory_bytes=2_000_000_000, utilisation_percent=None, folder=None):
    folder = folder or "/run/gpu/" + os.environ["NVIDIA_VISIBLE_DEVICES"].split(",")[0]
    file = open(os.path.join(folder, str(os.getpid())), "w")
    os.fchmod(file.fileno(), 0o644)  # whatever the umask: root without powers reads it
    fcntl.lockf(file, fcntl.LOCK_EX)
    os.ftruncate(file.fileno(), 0)
    file.write(f"memory {memory_bytes}\\n")
    if utilisation_percent is not None:
        file.write(f"utilisation {utilisation_percent}\\n")
    file.flush()
    return file

def let_go(file):
    os.unlink(file.name)
    file.close()
"""
