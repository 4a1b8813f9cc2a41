"""The one door to NVML: what a driver does not support is absent, and no library means no GPUs."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import Any, TypeVar

import pynvml  # type: ignore[import-untyped]  # nvidia-ml-py ships no types

from dpo_telemetry import events

T = TypeVar("T")


class Nvml:
    """NVML for as long as it is open."""

    def __init__(self) -> None:
        self._open = False
        with contextlib.suppress(pynvml.NVMLError):
            pynvml.nvmlInit()
            self._open = True

    def sample(self, host: str) -> Iterator[events.Gpu]:
        """One look at each GPU; a GPU that is lost says so in `error`."""
        for index in range(self._count()):
            yield _look(host, index)

    def close(self) -> None:
        """Let the driver go."""
        if self._open:
            self._open = False
            with contextlib.suppress(pynvml.NVMLError):
                pynvml.nvmlShutdown()

    def _count(self) -> int:
        if not self._open:
            return 0
        return _metric(pynvml.nvmlDeviceGetCount) or 0


def _look(host: str, index: int) -> events.Gpu:
    try:
        handle = pynvml.nvmlDeviceGetHandleByIndex(index)
        name = _text(pynvml.nvmlDeviceGetName(handle))
        memory = _memory(handle)
    except pynvml.NVMLError as error:
        return events.Gpu(**events.stamp(), host=host, index=index, name="", error=str(error))
    utilisation = _metric(pynvml.nvmlDeviceGetUtilizationRates, handle)
    power_mw = _metric(pynvml.nvmlDeviceGetPowerUsage, handle)
    return events.Gpu(
        **events.stamp(),
        host=host,
        index=index,
        name=name,
        uuid=_text(_metric(pynvml.nvmlDeviceGetUUID, handle) or ""),
        memory_total_bytes=None if memory is None else int(memory.total),
        memory_used_bytes=None if memory is None else int(memory.used),
        process_bytes=_process_bytes(handle),
        utilisation_percent=None if utilisation is None else float(utilisation.gpu),
        power_w=None if power_mw is None else power_mw / 1000,
        temperature_c=_temperature_c(handle),
    )


def _memory(handle: Any) -> Any:
    """Memory by version 2, whose `used` leaves the driver's own reserve out; None where it is not supported.

    Raises:
        pynvml.NVMLError_GpuIsLost: the card fell off the bus.
    """
    try:
        return pynvml.nvmlDeviceGetMemoryInfo(handle, version=pynvml.nvmlMemory_v2)
    except pynvml.NVMLError_GpuIsLost:
        raise
    except pynvml.NVMLError:
        return None


def _process_bytes(handle: Any) -> dict[str, int]:
    processes = _metric(pynvml.nvmlDeviceGetComputeRunningProcesses, handle) or []
    return {str(p.pid): int(p.usedGpuMemory) for p in processes if p.usedGpuMemory is not None}


def _temperature_c(handle: Any) -> float | None:
    value = _metric(pynvml.nvmlDeviceGetTemperatureV, handle, pynvml.NVML_TEMPERATURE_GPU)
    if value is None:
        value = _metric(pynvml.nvmlDeviceGetTemperature, handle, pynvml.NVML_TEMPERATURE_GPU)
    return None if value is None else float(value)


def _metric(read: Callable[..., T], *arguments: Any) -> T | None:
    """What `read` gives; None where this driver or card does not have it."""
    try:
        return read(*arguments)
    except pynvml.NVMLError:
        return None


def _text(value: str | bytes) -> str:
    return value.decode(errors="replace") if isinstance(value, bytes) else value
