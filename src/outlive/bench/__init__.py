"""Measuring parts of Outlive at sizes that no lab has: the real code, fed by stand-ins that cost little.

Benches of whole hosts are in `outlive.lab`. What is printed is of this machine at this moment, so each bench measures
beside it, in the same run, what the machine can do at best. Nothing here is imported by what it measures.
"""

import logging

import structlog


def quiet() -> None:
    """Have what is measured log nothing but errors, in this process: lines of a log are no part of a table."""
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.ERROR))
