"""The equations, once: pure stage functions over an `ops` namespace, for a path and a group of deals.

A quarter runs world → deliver → pool → pay → buyer → record; `terms` runs once a path. Arrays broadcast: a
group's parameters are [deals, 1], its state [deals, lanes] (or [deals, 1] where no path differs), the world
[lanes]. Python `if`s test only what the plan fixes, so a traced or printed stage has no branches.
"""
