"""The known vulnerabilities of everything in a hub, once and for ever.

    tables      what is kept
    inventory   each image is inventoried once, by a process of its own within bounds
    index       which packages a new index of advisories says something else about
    matching    packages against advisories; from when to when which finding held
    judging     images: verdict, gate, what changed
    gates       what a collection lets pass, by whom and until when
    signatures  evidence against the keys that a collection trusts
    told        webhooks, feeds and requests to rebuild
    questions   what pages and the API ask
    inspector   the worker that does all this in the background

    image --inventory--> packages <--by name-- advisories
                            |
                       findings, each with its time --judging--> verdicts of releases --told--> people, machines

Images share their packages: a package is stored and matched once, however many images have it. A new advisory leads by
the name of its package to the few packages it can be about, and from them to their images; nothing is scanned again.
"""
