"""Deposits: a source is kept by its content, read for what it says of itself, and becomes a release by a pipeline.

`swhid` names content, `apart` is the process that opens what strangers packed, `reading` finds in a source what its
recipe needs, `licences` knows texts, `recipes` writes the recipe around the source. `keep` stores and starts; people
and programs come in by `doors` (JSON) and `pages` (HTML, with `upload` for files from browsers). `index` writes them
down, in the table of `tables` and in the storage.

The archive is kept as it came, under its digest, for ever; the same tree deposited again is answered from the first.
"""
