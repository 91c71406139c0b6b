"""The hub: an OCI registry, a Library API for Apptainer, a key server, a small JSON API and a portal over one store.

Read `app` first: it only wires. `state` holds the parts that every door gets: `blobs` the content, `db` the index of
it, `auth` who may do what, `making` the SIF of images without one; `manifests` is what may be pushed, moved and
deleted, `catalogue` what a release is. `registry`, `library`, `keys`, `api` and `portal` are the doors;
`serve` runs it all.

Below: `storage` where objects lie (a folder, a bucket), `records` what they say of repositories, `dialects` SQLite and
PostgreSQL, `migrations` the history of the tables. For the operator: `checks`, `gc`, `scrub`, `rebuild`, `backup`;
`health`, `meter` and `logs` for machines that watch.

People: `accounts` who there is, `roles` who may what in which collection, `signin` with `oidc` and `id_tokens` how they
come in, `publishing` how CI gets a token, `manage` (JSON) and `account_pages` (HTML) the doors to change all that;
`browser` cookies and forms, `audit` the log of every write, `webhooks` with `outside` what other machines are told.

Building: `pipelines` is how a source becomes a release here, `worker` the processes of other users that do it;
`deposits` keeps sources, and asks their authors for what these do not say.
"""
