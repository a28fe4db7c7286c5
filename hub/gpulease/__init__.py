"""The contract between gpuhub's processes: broker, servers, workers, browsers and scripts.

Everything that crosses a process boundary is described here, and only here, with pydantic and
httpx alone, so that any side can depend on it without taking the other sides along.
"""

__version__ = "0.1.0"
