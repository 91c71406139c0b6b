"""Advisories: what feeds publish about vulnerable versions, in one SQLite file that is asked by package.

osv        records of the OSV schema: most distributions and languages
debian     Debian's security tracker: what is not fixed, and will not be
alpine     Alpine's secdb: which version fixed what
facts      KEV (exploited in the wild) and EPSS (how likely that is)
index      the file: writing it, whole or not at all
lookup     the file: asking it
update     feeds into the file, each for itself: of a broken feed the old content stays
bundle     the file as one that can be carried to a site without Internet, and signed
"""
