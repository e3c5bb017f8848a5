"""The shared REST service: API, worker and storage."""
