"""A thin device layer over CUDA: devices, streams, memory and graphs, over whichever binding is installed."""

from ran_deploy.runtime.cuda.binding import Device
from ran_deploy.runtime.cuda.devices import current_device, current_index, on_device, require_gpu, used_bytes
from ran_deploy.runtime.cuda.objects import DeviceMemory, Graph, HostMemory, Stream, release

__all__ = [
    "Device",
    "DeviceMemory",
    "Graph",
    "HostMemory",
    "Stream",
    "current_device",
    "current_index",
    "on_device",
    "release",
    "require_gpu",
    "used_bytes",
]
