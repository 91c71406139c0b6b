"""Pipelines: a source becomes a release, step by step, on the hub's workers, whatever dies meanwhile.

`tables` is what is known of them, `words` what hub and worker tell each other, `start` how one begins, `queue` who gets
which next, `work` the door of the workers, `publish` the last steps, which the hub does itself. `view` is what people
see of it, in `doors` (JSON) and `pages` (HTML). `hooks` starts pipelines for GitLab and GitHub; `timer` those that
nobody starts.

A step that ended is a row. A worker holds a pipeline by a lease that it renews with each report; whose lease was given
to another can report no more, and its push token is gone. So a pipeline goes on where it stopped, and comes out once.
"""
