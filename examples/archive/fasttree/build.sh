#!/bin/sh
set -eu
mkdir source
tar -xf fasttree_2.1.11.orig.tar.xz -C source
cd source
# double precision, as Debian builds it: short branches come out right
# shellcheck disable=SC2086  # CFLAGS are several words
gcc ${CFLAGS:--O3} -DUSE_DOUBLE -o fasttree FastTree-2.1.11/fasttree.c -lm
install -m 755 -D fasttree /usr/local/bin/fasttree
