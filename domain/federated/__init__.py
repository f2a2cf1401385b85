"""Jobs over several private files, each under a budget of its own: invitations, silos, and the rounds that they share.
The parent job opens no row and reserves nothing; each silo is a child job with its own reservation, work and worker."""
