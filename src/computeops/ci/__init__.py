"""What continuous integration gets from us: its pipeline files, its log, its reports, and logins without a secret.

`computeops.cli.ci_run` is the pipeline itself; nothing here builds, signs or sends an image.
"""
