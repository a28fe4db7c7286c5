"""What is never saved, told by what it is and not by whether it happens to pickle.

A file that pickles as its text, a map of a file that pickles as a copy in memory, a proxy that
pickles as an address of a process that is about to end: each of them would come back as something
else without a word. Promises: every refusal has a reason and a hint how to get the thing back.

Types are named by module and name and looked up only in modules that are loaded, so that nothing
is imported to refuse it.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator

AGAIN = "Run the cell that makes it again."
OPEN_AGAIN = "Run the cell that opens it again."
CONNECT_AGAIN = "Run the cell that connects again."
START_AGAIN = "Run the cell that starts it again."


class Refused(Exception):
    """This object stays behind. ``reason`` and ``hint`` are sentences for the person."""

    def __init__(self, reason: str, hint: str = AGAIN) -> None:
        super().__init__(reason)
        self.reason, self.hint = reason, hint


_FILE = ("An open file belongs to its process.", OPEN_AGAIN)
_LOCK = ("A lock belongs to the threads of its process.", AGAIN)
_THREAD = ("A thread cannot leave its process.", START_AGAIN)
_PROCESS = ("It belongs to a process that this kernel started.", START_AGAIN)
_SOCKET = ("A network connection cannot leave its process.", CONNECT_AGAIN)
_DATABASE = ("A connection to a database cannot leave its process.", CONNECT_AGAIN)
_RUNNING = ("It is code halted in the middle, which cannot be saved.", AGAIN)
_TASK = ("It belongs to the event loop of this process.", START_AGAIN)
_POOL = ("A pool of workers cannot leave its process.", START_AGAIN)
_QUEUE = ("It is shared with other threads or processes.", AGAIN)
_SHARED = ("It is memory shared with other processes.", AGAIN)
_TEMPORARY = ("A temporary file or folder disappears with its process.", AGAIN)
_FRAME = ("It is part of a running program's stack.", AGAIN)
_WIDGET = (
    "A widget is tied to the page that shows it; only its data can be carried.",
    "Run the cell that shows it again.",
)
_DEVICE = ("It is a handle to a device of this machine.", AGAIN)
_POINTER = ("It points into the memory of this process.", AGAIN)

REFUSED: dict[str, tuple[str, str]] = {
    "_io.FileIO": _FILE,
    "_io.TextIOWrapper": _FILE,
    "_io.BufferedReader": _FILE,
    "_io.BufferedWriter": _FILE,
    "_io.BufferedRandom": _FILE,
    "_io.BufferedRWPair": _FILE,
    "posix.ScandirIterator": _FILE,
    "posix.DirEntry": _FILE,
    "mmap.mmap": ("A map of a file belongs to its process.", OPEN_AGAIN),
    "numpy.memmap": ("It is a map of a file, not data of its own.", OPEN_AGAIN),
    "zipfile.ZipFile": _FILE,
    "zipfile.ZipExtFile": _FILE,
    "tarfile.TarFile": _FILE,
    "shelve.Shelf": _FILE,
    "dbm.dumb._Database": _FILE,
    "_gdbm.gdbm": _FILE,
    "_dbm.dbm": _FILE,
    "h5py._hl.base.HLObject": _FILE,
    "tables.file.File": _FILE,
    "netCDF4._netCDF4.Dataset": _FILE,
    "pandas.io.parsers.readers.TextFileReader": _FILE,
    "pandas.io.pytables.HDFStore": _FILE,
    "pandas.io.excel._base.ExcelFile": _FILE,
    "pandas.io.excel._base.ExcelWriter": _FILE,
    "_csv.Reader": ("A reader is halted in the middle of its file.", OPEN_AGAIN),
    "_csv.Writer": _FILE,
    "tempfile._TemporaryFileWrapper": _TEMPORARY,
    "tempfile.SpooledTemporaryFile": _TEMPORARY,
    "tempfile.TemporaryDirectory": _TEMPORARY,
    "_thread.lock": _LOCK,
    "_thread.RLock": _LOCK,
    "threading.Condition": _LOCK,
    "threading.Semaphore": _LOCK,
    "threading.Event": _LOCK,
    "threading.Barrier": _LOCK,
    "_thread._local": ("Its values belong to the threads of this process.", AGAIN),
    "threading.Thread": _THREAD,
    "multiprocessing.synchronize.SemLock": _LOCK,
    "multiprocessing.process.BaseProcess": _PROCESS,
    "multiprocessing.pool.Pool": _POOL,
    "multiprocessing.managers.BaseManager": _PROCESS,
    "multiprocessing.managers.BaseProxy": _PROCESS,
    "multiprocessing.connection._ConnectionBase": _PROCESS,
    "multiprocessing.queues.Queue": _QUEUE,
    "multiprocessing.queues.SimpleQueue": _QUEUE,
    "multiprocessing.shared_memory.SharedMemory": _SHARED,
    "multiprocessing.shared_memory.ShareableList": _SHARED,
    "multiprocessing.sharedctypes.SynchronizedBase": _SHARED,
    "subprocess.Popen": _PROCESS,
    "psutil.Process": _PROCESS,
    "asyncio.subprocess.Process": _PROCESS,
    "concurrent.futures._base.Executor": _POOL,
    "concurrent.futures._base.Future": _TASK,
    "joblib.parallel.Parallel": _POOL,
    "_asyncio.Future": _TASK,
    "_asyncio.Task": _TASK,
    "asyncio.futures.Future": _TASK,
    "asyncio.events.Handle": _TASK,
    "asyncio.events.AbstractServer": _SOCKET,
    "asyncio.streams.StreamReader": _SOCKET,
    "asyncio.streams.StreamWriter": _SOCKET,
    "asyncio.events.AbstractEventLoop": _TASK,
    "_queue.SimpleQueue": _QUEUE,
    "queue.Queue": _QUEUE,
    "_socket.socket": _SOCKET,
    "ssl.SSLSocket": _SOCKET,
    "ssl.SSLContext": _SOCKET,
    "select.poll": _SOCKET,
    "select.epoll": _SOCKET,
    "selectors.BaseSelector": _SOCKET,
    "http.client.HTTPConnection": _SOCKET,
    "http.client.HTTPResponse": _SOCKET,
    "socketserver.BaseServer": _SOCKET,
    "ftplib.FTP": _SOCKET,
    "smtplib.SMTP": _SOCKET,
    "imaplib.IMAP4": _SOCKET,
    "zmq.sugar.socket.Socket": _SOCKET,
    "zmq.sugar.context.Context": _SOCKET,
    "sqlite3.Connection": _DATABASE,
    "sqlite3.Cursor": _DATABASE,
    "sqlite3.Blob": _DATABASE,
    "psycopg._connection_base.BaseConnection": _DATABASE,
    "psycopg2.extensions.connection": _DATABASE,
    "psycopg2.extensions.cursor": _DATABASE,
    "pymysql.connections.Connection": _DATABASE,
    "duckdb.DuckDBPyConnection": _DATABASE,
    "_duckdb.DuckDBPyConnection": _DATABASE,
    "_duckdb.DuckDBPyRelation": _DATABASE,
    "sqlalchemy.engine.base.Engine": _DATABASE,
    "sqlalchemy.engine.base.Connection": _DATABASE,
    "sqlalchemy.orm.session.Session": _DATABASE,
    "pymongo.mongo_client.MongoClient": _DATABASE,
    "pymongo.synchronous.mongo_client.MongoClient": _DATABASE,
    "redis.client.Redis": _DATABASE,
    "builtins.generator": ("A generator is code halted in the middle, which cannot be saved.", AGAIN),
    "builtins.coroutine": _RUNNING,
    "builtins.async_generator": _RUNNING,
    "builtins.async_generator_asend": _RUNNING,
    "builtins.coroutine_wrapper": _RUNNING,
    "builtins.frame": _FRAME,
    "builtins.traceback": _FRAME,
    "weakref.finalize": ("It is tied to the end of an object of this process.", AGAIN),
    "weakref.ProxyType": ("A weak proxy cannot be told from the object that it stands for.", AGAIN),
    "weakref.CallableProxyType": ("A weak proxy cannot be told from the object that it stands for.", AGAIN),
    "_contextvars.Token": _RUNNING,
    "_contextvars.Context": _RUNNING,
    "_ctypes._Pointer": _POINTER,
    "_ctypes.CFuncPtr": _POINTER,
    "ctypes.CDLL": _POINTER,
    "builtins.PyCapsule": _POINTER,
    "logging.handlers.SocketHandler": _SOCKET,
    "logging.handlers.QueueListener": _THREAD,
    "ipywidgets.widgets.widget.Widget": _WIDGET,
    "comm.base_comm.BaseComm": _WIDGET,
    "torch.cuda.streams.Stream": _DEVICE,
    "torch.cuda.streams.Event": _DEVICE,
    "torch.cuda.graphs.CUDAGraph": _DEVICE,
    "torch._C._CudaStreamBase": _DEVICE,
    "torch._C._CudaEventBase": _DEVICE,
    "torch.utils.data.dataloader._BaseDataLoaderIter": (
        "It is halted in the middle of a data loader.",
        "Start the loop over the data loader again.",
    ),
    "torch.utils.tensorboard.writer.SummaryWriter": _FILE,
    "xgboost.core.DMatrix": ("It is data inside XGBoost's own memory.", AGAIN),
    "tensorflow.python.client.session.BaseSession": _DEVICE,
    "cupy.cuda.stream.Stream": _DEVICE,
    "cupy.cuda.stream.Event": _DEVICE,
}


def refused_types() -> Iterator[tuple[type, tuple[str, str]]]:
    """Yield the refused types of the modules that are loaded, each with its reason and hint."""
    builtin = {"generator", "coroutine", "async_generator", "frame", "traceback"}
    import types
    import weakref

    yield types.GeneratorType, REFUSED["builtins.generator"]
    yield types.CoroutineType, REFUSED["builtins.coroutine"]
    yield types.AsyncGeneratorType, REFUSED["builtins.async_generator"]
    yield types.FrameType, REFUSED["builtins.frame"]
    yield types.TracebackType, REFUSED["builtins.traceback"]
    yield weakref.ProxyType, REFUSED["weakref.ProxyType"]
    yield weakref.CallableProxyType, REFUSED["weakref.CallableProxyType"]
    for path, why in REFUSED.items():
        module_name, _, name = path.rpartition(".")
        module = sys.modules.get(module_name)
        found = getattr(module, name, None) if module is not None and name not in builtin else None
        if isinstance(found, type):
            yield found, why
