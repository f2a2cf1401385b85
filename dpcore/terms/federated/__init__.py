"""What can be said without torch about learning from several files, each under a budget of its own: silos. Every silo
runs a program of its own, priced on its own budget as any other job's; what leaves it are noised changes of weights."""
