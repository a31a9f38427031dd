"""What a bench ran on."""

import os
import platform
from importlib import metadata
from pathlib import Path
from typing import Any, Final

PACKAGES: Final = (
    *("httpx", "httpx-aiohttp", "aiohttp", "boto3", "moto", "pandas", "pyarrow", "pillow", "prefect", "pydantic"),
    *("segmind", "starlette", "uvicorn", "variations"),
)
_GIB: Final = 1 << 30


def describe_machine() -> dict[str, Any]:
    """Return processor, cores, memory, kernel, Python and the versions of the main packages."""
    memory_bytes = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return {
        "cpu": _cpu_model(),
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "memory_gib": round(memory_bytes / _GIB, 1),
        "kernel": f"{platform.system()} {platform.release()}",
        "python": platform.python_version(),
        # What else runs takes its share of the processors.
        "load_average": [round(load, 2) for load in os.getloadavg()],
        "packages": {name: _version(name) for name in PACKAGES},
    }


def _cpu_model() -> str:
    path = Path("/proc/cpuinfo")
    lines = path.read_text(encoding="utf-8", errors="replace").splitlines() if path.exists() else []
    models = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(models, platform.processor() or platform.machine())


def _version(package: str) -> str:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return ""
