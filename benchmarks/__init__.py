"""The benchmarks: ``python -m benchmarks run`` from the root of the repository. See docs/benchmarks.md."""
