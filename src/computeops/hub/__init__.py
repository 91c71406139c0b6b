"""The hub: an OCI registry, a Library API for Apptainer, a key server, a small JSON API and a portal over one store.

Read `app` first: it only wires. `state` holds the parts that every door gets: `blobs` the content, `db` the index of
it, `auth` who may do what, `making` the SIF of images without one; `manifests` is what may be pushed, moved and deleted,
`catalogue` what a release is. `registry`, `library`, `keys`, `api` and `portal` are the doors; `serve` runs it all.
"""
