"""Logs as JSON, Prometheus metrics, OpenTelemetry traces."""
