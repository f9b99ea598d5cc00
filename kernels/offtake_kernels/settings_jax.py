"""JAX's own settings for a while and a thread, whatever the program around has chosen."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import jax


@contextmanager
def usual_settings() -> Iterator[None]:
    """Those that stages are traced, compiled and run in: numpy's arrays go to devices unasked, shapes are
    broadcast, and what is compiled is run.
    """
    with jax.disable_jit(False), jax.transfer_guard("allow"), jax.numpy_rank_promotion("allow"):
        yield
