"""The API on this machine: the whole contract of Flux Redux Dev, with faults to order. **It is not FLUX.**

No model is at work: an output is its source, cropped, mirrored and recoloured, and says so in its metadata. What is
real is everything around it: states, queue, prices, limits, errors, expiry.
"""

from variations.sandbox.bill import Bill, BillLine
from variations.sandbox.faults import FAULTS, Fault
from variations.sandbox.handle import Sandbox
from variations.sandbox.samples import sample_photos
from variations.sandbox.server import running_sandbox
from variations.sandbox.settings import DEFAULT_API_KEY, SandboxSettings

__all__ = [
    "DEFAULT_API_KEY",
    "FAULTS",
    "Bill",
    "BillLine",
    "Fault",
    "Sandbox",
    "SandboxSettings",
    "running_sandbox",
    "sample_photos",
]
