"""CUDA through CuPy: every visible GPU, or those of `device.index`."""

from __future__ import annotations

import importlib
import importlib.util
import math
import platform
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from itertools import pairwise
from typing import Any, ClassVar

import numpy as np

from offtake.errors import DeviceError
from offtake.hal import nvrtc
from offtake.hal.device import Device
from offtake.hal.launches import side_by_side
from offtake.hal.limits import COPIED_BYTES, Limits, rate
from offtake.study import DeviceChoice
from offtake_kernels import yardstick, yardstick_cuda
from offtake_kernels.kept import Kept
from offtake_kernels.kernel import Kernel, print_kernel
from offtake_kernels.layout import Plan
from offtake_kernels.path_cuda import Gpu, threads_of
from offtake_kernels.tally import TallyBuilder
from offtake_kernels.yardstick_cuda import Bench, print_yardstick

# Constant memory of a kernel (CUDA C++ Programming Guide, technical specifications by compute capability),
# less what the tally's pointers take.
_CONSTANT_BYTES = 65_536 - 64


class CudaDevice(Device):
    """GPUs side by side, each with a share of the paths."""

    name: ClassVar[str] = "cuda"
    most_units: ClassVar[int] = 8
    can_be_fast: ClassVar[bool] = True
    numpy_cores: ClassVar[float] = 1500.0  # OpenAI, strict, an H100: bench/results/gpu_check.json
    process_gib: ClassVar[float] = 0.6  # not measured
    seconds_a_worker = math.inf

    def __init__(self, choice: DeviceChoice) -> None:
        import cupy

        self._cupy = cupy
        count = cupy.cuda.runtime.getDeviceCount()
        usable = tuple(n for n in range(count) if _architecture(cupy, n) >= nvrtc.OLDEST)
        self._numbers = usable if choice.index is None else choice.index
        for number in self._numbers:
            if number >= count:
                raise DeviceError(f"device.index={number}: {count} GPUs are visible here, from 0")
            if _architecture(cupy, number) < nvrtc.OLDEST:
                found = _architecture(cupy, number) / 10
                raise DeviceError(
                    f"device.index={number}: compute capability {found}; 7.5 or later is needed"
                )
        self._strict = choice.arithmetic == "strict"
        self._launch = choice.launch_paths
        self._plan: Plan | None = None
        self._gpus: list[Gpu] = []

    @classmethod
    def unusable(cls) -> str | None:
        if importlib.util.find_spec("cupy") is None:
            return f"CuPy is not installed; {nvrtc.EXTRAS}"
        try:
            import cupy
        except ImportError as error:
            return f"CuPy cannot be imported ({error}); {nvrtc.EXTRAS}"
        try:
            count = cupy.cuda.runtime.getDeviceCount()
        except cupy.cuda.runtime.CUDARuntimeError as error:
            found = str(error).partition(":")[0]
            return f"no Nvidia driver that this CUDA can use ({found}); install one, or use device=numpy"
        if count == 0:
            return "no GPU is visible; see nvidia-smi and CUDA_VISIBLE_DEVICES, or use device=numpy"
        newest = max(_architecture(cupy, number) for number in range(count))
        if newest < nvrtc.OLDEST:
            return f"compute capability {newest / 10}; {nvrtc.OLDEST / 10} or later is needed"
        try:
            nvrtc.load()
        except DeviceError as error:
            return str(error)
        return None

    @classmethod
    def devices(cls) -> list[dict[str, Any]]:
        import cupy

        return [_described(cupy, number) for number in range(cupy.cuda.runtime.getDeviceCount())]

    def describe(self) -> dict[str, Any]:
        first = _described(self._cupy, self._numbers[0])
        several = f"{len(self._numbers)} x " if len(self._numbers) > 1 else ""
        return {"backend": self.name, **first, "kind": several + first["kind"]}

    def launch_paths(self, plan: Plan) -> int:
        with self._explained():
            return self._open(plan)[0].launch_paths

    @classmethod
    def worker_environment(cls, folder: str) -> dict[str, str]:
        return {}  # machine code is in a cache of the user's

    def prepare(self, plan: Plan) -> None:
        with self._explained():
            self._open(plan)

    def add(self, plan: Plan, first_path: int, paths: int, keep: int, builder: TallyBuilder) -> Kept | None:
        with self._explained():
            gpus = self._open(plan)
        shares = _shares(first_path, paths, keep, len(gpus))
        works = [partial(self._run, gpu, share) for gpu, share in zip(gpus, shares, strict=True)]
        return side_by_side(plan, works, builder)

    def limits(self) -> Limits:
        with self._explained(), ThreadPoolExecutor(len(self._numbers)) as pool:
            every = list(pool.map(self._limits_of, self._numbers))
        return Limits(
            *(sum(getattr(one, name) for one in every) for name in ("multiply_adds", "words", "bytes"))
        )

    def joules(self) -> float | None:
        """By NVML, where nvidia-ml-py is installed and the GPUs count."""
        try:
            nvml = importlib.import_module("pynvml")
            nvml.nvmlInit()
            buses = (self._cupy.cuda.Device(number).pci_bus_id for number in self._numbers)
            handles = [nvml.nvmlDeviceGetHandleByPciBusId(bus.encode()) for bus in buses]
            return sum(nvml.nvmlDeviceGetTotalEnergyConsumption(handle) for handle in handles) / 1e3
        except ImportError:
            return None
        except nvml.NVMLError:
            return None

    def _run(self, gpu: Gpu, share: tuple[int, int, int], builder: TallyBuilder) -> list[Kept]:
        first_path, paths, keep = share
        with self._explained():
            return gpu.run(first_path, paths, keep, builder) if paths else []

    def _limits_of(self, number: int) -> Limits:
        cupy, found = self._cupy, {}
        architecture = _architecture(cupy, number)
        for name, rod in (("multiply_adds", yardstick.multiply_adds()), ("words", yardstick.words())):
            source, arrays = print_yardstick(rod)
            code = nvrtc.cubin(
                cupy.cuda.nvrtc, source, architecture, strict=False, threads=yardstick_cuda.THREADS
            )
            bench = Bench(cupy, rod, code, arrays, number)
            found[name] = rate(bench.run, bench.amount)
        with cupy.cuda.Device(number):
            source, target = (cupy.empty(COPIED_BYTES, np.uint8) for _ in range(2))

            def copy() -> None:
                target.data.copy_from_device(source.data, COPIED_BYTES)
                cupy.cuda.Device().synchronize()

            return Limits(**found, bytes=rate(copy, 2 * COPIED_BYTES))

    @contextmanager
    def _explained(self) -> Iterator[None]:
        """What the device raises, as an error of ours."""
        cuda = self._cupy.cuda
        try:
            yield
        except MemoryError as error:
            raise DeviceError(f"device=cuda: {error}; use a smaller portfolio, or device=numpy") from None
        except (cuda.runtime.CUDARuntimeError, cuda.driver.CUDADriverError) as error:
            raise DeviceError(
                f"device=cuda: the GPU failed ({error}); nothing of this unit was kept"
            ) from None

    def _open(self, plan: Plan) -> list[Gpu]:
        """The GPUs with this plan's kernel."""
        if self._plan is not plan:
            self._gpus = []
            kernel = print_kernel(plan)
            _refuse_too_many_numbers(kernel, len(plan.deal_names))
            for number in self._numbers:
                architecture = _architecture(self._cupy, number)
                compiler = self._cupy.cuda.nvrtc
                block = {"threads": threads_of(kernel, strict=self._strict)}
                code = nvrtc.cubin(compiler, kernel.source, architecture, strict=self._strict, **block)
                block["shared"] = nvrtc.shared_bytes(nvrtc.supported(compiler, architecture))
                self._gpus.append(Gpu(self._cupy, kernel, code, number, self._launch, **block))
            self._plan = plan
        return self._gpus


def _refuse_too_many_numbers(kernel: Kernel, deals: int) -> None:
    if kernel.constant_bytes > _CONSTANT_BYTES:
        raise DeviceError(
            f"device=cuda: the terms of {deals} deals take {kernel.constant_bytes:,} bytes, and the constant "
            f"memory of a GPU has room for {_CONSTANT_BYTES:,}; use device=jax or device=numpy"
        )


def _shares(first_path: int, paths: int, keep: int, gpus: int) -> list[tuple[int, int, int]]:
    """(first path, paths, paths to keep whole) of each GPU: consecutive, and as equal as may be."""
    cuts = [first_path + paths * k // gpus for k in range(gpus + 1)]
    return [(a, b - a, max(0, min(first_path + keep - a, b - a))) for a, b in pairwise(cuts)]


def _architecture(cupy: Any, number: int) -> int:
    properties = cupy.cuda.runtime.getDeviceProperties(number)
    return 10 * properties["major"] + properties["minor"]


def _described(cupy: Any, number: int) -> dict[str, Any]:
    properties = cupy.cuda.runtime.getDeviceProperties(number)
    name = properties["name"]
    runtime = cupy.cuda.runtime
    return {
        "kind": name.decode() if isinstance(name, bytes) else name,
        "cores": properties["multiProcessorCount"],
        "memory_gib": round(properties["totalGlobalMem"] / 2**30, 1),
        "versions": {
            "cupy": cupy.__version__,
            "cuda_driver": str(runtime.driverGetVersion()),
            "nvrtc": ".".join(map(str, cupy.cuda.nvrtc.getVersion())),
            "numpy": np.__version__,
            "python": platform.python_version(),
        },
    }
