"""Blobs, artifacts and the durable record of what was acknowledged, in an object store."""
