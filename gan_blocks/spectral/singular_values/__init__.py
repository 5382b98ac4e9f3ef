"""The largest singular values of a weight: block Krylov methods, and what certifies their results."""
