# Runs inside the new root, in the folder of the sources, without network.
tcc -DSTEP="${STEP:-1}" -o /usr/local/bin/counter counter.c
