"""Moving one workload's state: epochs to a standby, checkpoints to a datastore, live migration.

A source cuts its state into steps, a stream carries them in order, a sink keeps the newest whole one. Who may act is
decided elsewhere; here is only what makes the decision harmless: nothing unacknowledged leaves.
"""
