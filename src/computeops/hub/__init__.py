"""The hub: an OCI registry, a Library API for Apptainer, a small JSON API and a portal over one store.

Read `app` first: it only wires. `blobs` holds the content, `db` the index of it, `catalogue` what a release is, `auth`
who may do what; `registry`, `library`, `api` and `portal` are the four doors.
"""
