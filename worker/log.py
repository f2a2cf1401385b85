"""The worker's log: for the operator. It names jobs, types of errors and places in the code, never what is in a row."""

import logging

log = logging.getLogger("tacit.worker")
