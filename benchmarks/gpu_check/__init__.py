"""Everything on a GPU, once: ``python -m benchmarks.gpu_check``."""
