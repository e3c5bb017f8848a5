"""The service under load: latency, throughput, transfers, memory. Loopback only, bounded."""
