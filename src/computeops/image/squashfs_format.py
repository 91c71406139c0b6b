"""Squashfs 4.0 on disk: the records and numbers that the reader and the writer share.

Layout: Documentation/filesystems/squashfs.rst of Linux and fs/squashfs/squashfs_fs.h; everything is little-endian.
"""

import stat
import struct

MAGIC = b"hsqs"
SUPERBLOCK = struct.Struct("<5I6H8Q")
METADATA_BYTES = 8192
UNCOMPRESSED_METADATA, UNCOMPRESSED_DATA = 0x8000, 1 << 24
NONE_32, NONE_64 = 0xFFFFFFFF, 0xFFFFFFFFFFFFFFFF
COMPRESSORS = {1: "gzip", 2: "lzma", 3: "lzo", 4: "xz", 5: "lz4", 6: "zstd"}
PREFIXES = {0: "user.", 1: "trusted.", 2: "security."}
"""Of names of attributes."""

DIRECTORY, FILE, SYMLINK, BLOCK, CHARACTER, FIFO, SOCKET = range(1, 8)
EXTENDED = 7
"""The extended form of inode type n is n + 7."""
MODES = {
    DIRECTORY: stat.S_IFDIR,
    FILE: stat.S_IFREG,
    SYMLINK: stat.S_IFLNK,
    BLOCK: stat.S_IFBLK,
    CHARACTER: stat.S_IFCHR,
    FIFO: stat.S_IFIFO,
    SOCKET: stat.S_IFSOCK,
}

U32 = struct.Struct("<I")
INODE = struct.Struct("<HHHHII")
SHORT_DIRECTORY, LONG_DIRECTORY = struct.Struct("<IIHHI"), struct.Struct("<IIIIHHI")
SHORT_FILE, LONG_FILE = struct.Struct("<4I"), struct.Struct("<QQQIIII")
LISTING = struct.Struct("<III")
NAME = struct.Struct("<HhHH")
LISTING_INDEX = struct.Struct("<III")
FRAGMENT = struct.Struct("<QII")
XATTR_ID = struct.Struct("<QII")
XATTR_KEY = struct.Struct("<HH")
