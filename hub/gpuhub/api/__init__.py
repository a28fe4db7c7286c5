"""The broker's doors: REST, events and sign-in under ``/services/gpu/``, one resource a file.

Promises: every refusal is an `ErrorBody`; nobody reaches the broker without a token of the hub; what a
caller may see or change is decided by `gpuhub.broker`, from who he is, never from what he sends.
"""
