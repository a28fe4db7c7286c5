"""Puts the broker together: one store, one backend, one sampler, and what runs over them.

::

    store = await Store.open(settings.database_url)          # migrates to the newest schema
    broker = Broker(store, backend, sampler, load_policy(settings.policy_file))
    async with broker:                                       # observes, decides, applies in the background
        await broker.service.me(actor)
        broker.metrics.render()                              # text for Prometheus
    await store.close()
"""

from __future__ import annotations
