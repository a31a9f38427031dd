"""The API on this machine: the whole contract of Flux Redux Dev, with faults to order. It is not FLUX."""
