"""What is known about an image: every check looks at one image and returns `Evidence` about it.

    test         runs the recipe's tests inside the image          in-toto Test Result
    inventory    which packages the image has                      dpkg, apk, rpm, Python
    sbom         the inventory as a document                       CycloneDX 1.6, SPDX 2.3
    scan         which known vulnerabilities the packages have     in-toto Vulns; asks advisories, by versions
    vex          what people say about findings                    OpenVEX, CycloneDX, CSAF, ignore files
    freshness    whether the archive has newer packages
    provenance   what the image was built from, and how            SLSA Provenance v1

A fault that a check finds is evidence; a check raises only if it could not be done.
"""
