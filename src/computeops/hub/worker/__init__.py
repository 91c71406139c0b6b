"""A worker: takes pipelines from a hub, has them built by a scheduler, signs and pushes what came out.

`agent` is the process that runs all the time, with the token of the worker and its key. It takes a pipeline (`client`),
lays a folder for it (`plan`), hands a job to a scheduler, and tells the hub what the job leaves there. The job is
`runner`: one process that does the steps of `steps` one after the other, each in a child that `cage` watches; it has
neither token nor key, and an environment of its own. `addresses` says from where sources may come, `unpack` lays out
what strangers packed.

Whatever is killed, the folder says how far it is: a step that ended has a file in `steps/`, and is not done again.
"""
