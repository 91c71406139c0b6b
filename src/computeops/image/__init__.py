"""The forms of an image: tree, OCI, SIF, and the way between them.

Every form is read as a stream of `computeops.image.tree.Entry` and written from one; `convert` joins the two ends.
"""
