"""Adds an archive as borg 1.0 wrote it, with the modules of borg 1.1.

Its items tell no size and no hard link masters, those without content have no
list of chunks, chunker_params do not name the chunker, and nothing but the
manifest is authenticated. Run by make.sh in the tree: ancient.py REPOSITORY
"""

import os
import stat
import sys

from borg.compress import CompressionSpec
from borg.crypto.key import key_factory
from borg.helpers import Manifest, msgpack
from borg.item import ArchiveItem
from borg.logger import setup_logging
from borg.repository import Repository


def item(path, seen, chunk):
    st = os.lstat(path)
    d = {
        b"path": os.path.normpath(path), b"mode": st.st_mode, b"uid": st.st_uid, b"gid": st.st_gid,
        b"user": b"root", b"group": b"root",
        b"mtime": st.st_mtime_ns, b"atime": st.st_atime_ns, b"ctime": st.st_ctime_ns,
    }
    if stat.S_ISLNK(st.st_mode):
        d[b"source"] = os.readlink(path)
    elif stat.S_ISREG(st.st_mode):
        if st.st_nlink > 1 and st.st_ino in seen:
            d[b"source"] = seen[st.st_ino]
            return d
        seen[st.st_ino] = os.path.normpath(path)
        with open(path, "rb") as f:
            data = f.read()
        d[b"chunks"] = [chunk(data)] if data else []
    return d


def main():
    setup_logging()
    with Repository(sys.argv[1], exclusive=True) as repository:
        manifest, key = Manifest.load(repository, (Manifest.Operation.WRITE,))
        key.compressor = CompressionSpec("lz4").compressor

        def chunk(data):
            cid = key.id_hash(data)
            stored = key.encrypt(data)
            repository.put(cid, stored)
            return [cid, len(data), len(stored)]

        seen, stream = {}, b""
        for top, dirs, files in os.walk("."):
            dirs.sort()
            for name in [""] + sorted(files + [d for d in dirs if os.path.islink(os.path.join(top, d))]):
                stream += msgpack.packb(item(os.path.join(top, name), seen, chunk), use_bin_type=False)
        half = len(stream) // 2
        archive = ArchiveItem(dict(
            version=1, name="ancient", items=[chunk(stream[:half])[0], chunk(stream[half:])[0]],
            cmdline=["/usr/bin/borg", "create", "../../borg-1.1-ancient::ancient", "."],
            hostname="frozen", username="root",
            time="2016-03-01T00:00:00.000000", time_end="2016-03-01T00:00:01.000000",
            chunker_params=(19, 23, 21, 4095),
        ))
        data = msgpack.packb(archive.as_dict(), use_bin_type=False, unicode_errors="surrogateescape")
        manifest.archives["ancient"] = (chunk(data)[0], "2016-03-01T00:00:00.000000")
        manifest.write()
        repository.commit()


main()
