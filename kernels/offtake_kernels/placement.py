"""Where the arrays of JAX executables lie: on one device, or their lanes spread over several."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec, SingleDeviceSharding

from .graph import LANES


class Placement:
    """Devices of one platform that run an executable together, each with its share of the lanes."""

    def __init__(self, devices: Sequence[Any]):
        self.devices = tuple(devices)
        self._mesh = Mesh(np.array(self.devices), ("paths",))

    @property
    def platform(self) -> str:
        """JAX's name of it: cpu, gpu, tpu."""
        return self.devices[0].platform

    def sharding(self, shape: tuple[int, ...]) -> Any:
        """Of an array whose axis LANES is spread; any other is on every device."""
        if len(self.devices) == 1:
            return SingleDeviceSharding(self.devices[0])
        axes = ("paths" if n == LANES else None for n in shape)
        return NamedSharding(self._mesh, PartitionSpec(*axes))

    def shaped(self, shape: tuple[int, ...], dtype: Any, lanes: int) -> jax.ShapeDtypeStruct:
        """An argument of this shape with `lanes` in the place of LANES."""
        sizes = tuple(lanes if n == LANES else n for n in shape)
        return jax.ShapeDtypeStruct(sizes, dtype, sharding=self.sharding(shape))

    def put(self, array: np.ndarray, shape: tuple[int, ...]) -> Any:
        """The array on the devices; `shape` says which axis is LANES."""
        return jax.device_put(array, self.sharding(shape))
