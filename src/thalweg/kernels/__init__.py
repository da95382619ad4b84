"""From a Program to machine code: sources, memory access, and the CPU kernels' run time."""
