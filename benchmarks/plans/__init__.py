"""Plans, measured: exactness, latency, time, accuracy, trained networks."""
