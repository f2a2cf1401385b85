"""What the benchmarks of training share: models, contenders, and a process for each."""
