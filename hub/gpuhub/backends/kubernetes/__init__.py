"""GPUs of a Kubernetes cluster: a worker is a pod, made from its owner's server pod.

The only part of the broker that knows the library ``kubernetes``. See `backend` for what it promises.
"""
