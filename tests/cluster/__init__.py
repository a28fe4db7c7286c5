"""A real, current Kubernetes for tests and for people, on this machine, from nothing but source and packages.

Its programs are built from Go modules (`build`), run in namespaces of their own (`sandbox`) and leave
nothing behind: no sysctl, mount, rule, route or folder of the machine changes, and one PID ends it all.
`make cluster` starts one for people; pytest's fixtures `cluster` and `control_plane` start their own.
"""
