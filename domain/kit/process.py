"""What holds for every process that sees private rows."""

import os
import resource


def protect() -> None:
    """What this process and its children write is for its user alone, and no crash leaves a dump of its memory.

    A limit of one byte also stops dumps that go to a program: the kernel does not ask for a size there (core(5)).
    """
    os.umask(0o077)
    hard = resource.getrlimit(resource.RLIMIT_CORE)[1]
    least = 0 if hard == 0 else 1
    resource.setrlimit(resource.RLIMIT_CORE, (least, least))
