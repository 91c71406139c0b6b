"""Publish and fetch: a release beside its image on disk, and in an OCI registry."""
