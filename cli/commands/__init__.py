"""The client commands, one file per resource."""
