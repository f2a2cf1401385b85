"""DP-LoRA over several private files: silos train a few local steps each from the same public factors, noise them
themselves, and send what changed; a server, which opens no row, takes the mean."""
