"""Evidence -> signed, and whether what is signed may be trusted.

Read `policy.trust` first: it is the single gate. `key` and `keyring` hold the keys, `dsse` signs evidence, `pgp` signs
SIF files as Apptainer does.
"""
