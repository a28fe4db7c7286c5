"""The hub's side of gpuhub: broker, backends, telemetry, pages and the ``gpuhub`` command."""
