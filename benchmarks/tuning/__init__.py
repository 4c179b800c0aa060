"""Which cost model chooses the schedules to measure best, in TVM's tuning."""
