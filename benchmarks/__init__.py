"""Questions of speed, one file each; run them as `python -m benchmarks.<name>`."""
