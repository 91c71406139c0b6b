#!/bin/sh
set -eu
mkdir source
tar -xf seqtk_1.3.orig.tar.* -C source --strip-components=1
cd source
make CC=gcc CFLAGS="${CFLAGS:--O2}"
install -m 755 -D seqtk /usr/local/bin/seqtk
