"""The worker of a lease, and the one connection to it.

``python -m gpusession.worker`` is the process that holds a lease's GPUs; `gpusession.worker.link` is the
server's side of the connection. The only package that knows SSH.
"""
