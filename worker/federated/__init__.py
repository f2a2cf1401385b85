"""A worker's part in a federated job: a silo's rounds on its private file, and the coordinator, which opens no row."""
