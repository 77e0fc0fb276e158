package fusefs

import "github.com/hanwen/go-fuse/v2/fuse"

// The requests that concern one node and go to its side as they are. Those
// that make or remove a name are checked first.

func (m *mux) GetAttr(cancel <-chan struct{}, in *fuse.GetAttrIn, out *fuse.AttrOut) fuse.Status {
	return m.side(in.NodeId).GetAttr(cancel, in, out)
}

func (m *mux) SetAttr(cancel <-chan struct{}, in *fuse.SetAttrIn, out *fuse.AttrOut) fuse.Status {
	if in.Valid&fuse.FATTR_KILL_SUIDGID != 0 {
		fh, _ := in.GetFh()
		if st := m.clearSetID(cancel, &in.InHeader, fh); st != fuse.OK {
			return st
		}
	}
	return m.side(in.NodeId).SetAttr(cancel, in, out)
}

func (m *mux) Statx(cancel <-chan struct{}, in *fuse.StatxIn, out *fuse.StatxOut) fuse.Status {
	return m.side(in.NodeId).Statx(cancel, in, out)
}

func (m *mux) Mknod(cancel <-chan struct{}, in *fuse.MknodIn, name string, out *fuse.EntryOut) fuse.Status {
	if st := m.mayMake(in.NodeId, name); st != fuse.OK {
		return st
	}
	in.Mode = m.masked(cancel, &in.InHeader, in.Mode, in.Umask)
	return m.side(in.NodeId).Mknod(cancel, in, name, out)
}

func (m *mux) Mkdir(cancel <-chan struct{}, in *fuse.MkdirIn, name string, out *fuse.EntryOut) fuse.Status {
	if st := m.mayMake(in.NodeId, name); st != fuse.OK {
		return st
	}
	in.Mode = m.masked(cancel, &in.InHeader, in.Mode, in.Umask)
	return m.side(in.NodeId).Mkdir(cancel, in, name, out)
}

func (m *mux) Symlink(cancel <-chan struct{}, h *fuse.InHeader, target, name string, out *fuse.EntryOut) fuse.Status {
	if st := m.mayMake(h.NodeId, name); st != fuse.OK {
		return st
	}
	return m.side(h.NodeId).Symlink(cancel, h, target, name, out)
}

func (m *mux) Create(cancel <-chan struct{}, in *fuse.CreateIn, name string, out *fuse.CreateOut) fuse.Status {
	if st := m.mayMake(in.NodeId, name); st != fuse.OK {
		return st
	}
	in.Mode = m.masked(cancel, &in.InHeader, in.Mode, in.Umask)
	return m.side(in.NodeId).Create(cancel, in, name, out)
}

func (m *mux) Tmpfile(cancel <-chan struct{}, in *fuse.CreateIn, out *fuse.CreateOut) fuse.Status {
	in.Mode = m.masked(cancel, &in.InHeader, in.Mode, in.Umask)
	return m.side(in.NodeId).Tmpfile(cancel, in, out)
}

func (m *mux) Unlink(cancel <-chan struct{}, h *fuse.InHeader, name string) fuse.Status {
	if st := m.mayRemove(h.NodeId, name); st != fuse.OK {
		return st
	}
	return m.side(h.NodeId).Unlink(cancel, h, name)
}

func (m *mux) Rmdir(cancel <-chan struct{}, h *fuse.InHeader, name string) fuse.Status {
	if st := m.mayRemove(h.NodeId, name); st != fuse.OK {
		return st
	}
	return m.side(h.NodeId).Rmdir(cancel, h, name)
}

func (m *mux) Readlink(cancel <-chan struct{}, h *fuse.InHeader) ([]byte, fuse.Status) {
	return m.side(h.NodeId).Readlink(cancel, h)
}

func (m *mux) Access(cancel <-chan struct{}, in *fuse.AccessIn) fuse.Status {
	return m.side(in.NodeId).Access(cancel, in)
}

func (m *mux) ListXAttr(cancel <-chan struct{}, h *fuse.InHeader, dest []byte) (uint32, fuse.Status) {
	return m.side(h.NodeId).ListXAttr(cancel, h, dest)
}

func (m *mux) RemoveXAttr(cancel <-chan struct{}, h *fuse.InHeader, attr string) fuse.Status {
	return m.side(h.NodeId).RemoveXAttr(cancel, h, attr)
}

func (m *mux) Open(cancel <-chan struct{}, in *fuse.OpenIn, out *fuse.OpenOut) fuse.Status {
	st := m.side(in.NodeId).Open(cancel, in, out)
	if st == fuse.OK && out.OpenFlags&fuse.FOPEN_PASSTHROUGH != 0 {
		st = m.watchSetID(cancel, in, out)
	}
	return st
}

func (m *mux) Read(cancel <-chan struct{}, in *fuse.ReadIn, buf []byte) (fuse.ReadResult, fuse.Status) {
	return m.side(in.NodeId).Read(cancel, in, buf)
}

func (m *mux) Lseek(cancel <-chan struct{}, in *fuse.LseekIn, out *fuse.LseekOut) fuse.Status {
	return m.side(in.NodeId).Lseek(cancel, in, out)
}

func (m *mux) GetLk(cancel <-chan struct{}, in *fuse.LkIn, out *fuse.LkOut) fuse.Status {
	return m.side(in.NodeId).GetLk(cancel, in, out)
}

func (m *mux) SetLk(cancel <-chan struct{}, in *fuse.LkIn) fuse.Status {
	return m.side(in.NodeId).SetLk(cancel, in)
}

func (m *mux) SetLkw(cancel <-chan struct{}, in *fuse.LkIn) fuse.Status {
	return m.side(in.NodeId).SetLkw(cancel, in)
}

func (m *mux) Release(cancel <-chan struct{}, in *fuse.ReleaseIn) {
	m.side(in.NodeId).Release(cancel, in)
}

func (m *mux) Write(cancel <-chan struct{}, in *fuse.WriteIn, data []byte) (uint32, fuse.Status) {
	if in.WriteFlags&fuse.WRITE_KILL_SUIDGID != 0 {
		if st := m.clearSetID(cancel, &in.InHeader, in.Fh); st != fuse.OK {
			return 0, st
		}
	}
	return m.side(in.NodeId).Write(cancel, in, data)
}

func (m *mux) Writev(cancel <-chan struct{}, in *fuse.WriteIn, data [][]byte) (uint32, fuse.Status) {
	if in.WriteFlags&fuse.WRITE_KILL_SUIDGID != 0 {
		if st := m.clearSetID(cancel, &in.InHeader, in.Fh); st != fuse.OK {
			return 0, st
		}
	}
	return m.side(in.NodeId).Writev(cancel, in, data)
}

func (m *mux) Ioctl(cancel <-chan struct{}, in *fuse.IoctlIn, inbuf []byte, out *fuse.IoctlOut, outbuf []byte) fuse.Status {
	return m.side(in.NodeId).Ioctl(cancel, in, inbuf, out, outbuf)
}

func (m *mux) Flush(cancel <-chan struct{}, in *fuse.FlushIn) fuse.Status {
	return m.side(in.NodeId).Flush(cancel, in)
}

func (m *mux) Fsync(cancel <-chan struct{}, in *fuse.FsyncIn) fuse.Status {
	return m.side(in.NodeId).Fsync(cancel, in)
}

func (m *mux) Fallocate(cancel <-chan struct{}, in *fuse.FallocateIn) fuse.Status {
	if in.Uid != 0 {
		if st := m.clearSetID(cancel, &in.InHeader, in.Fh); st != fuse.OK {
			return st
		}
	}
	return m.side(in.NodeId).Fallocate(cancel, in)
}

func (m *mux) OpenDir(cancel <-chan struct{}, in *fuse.OpenIn, out *fuse.OpenOut) fuse.Status {
	if !isHistory(in.NodeId) {
		m.history.habits.open(in.Pid, in.NodeId) // which liveNode.OpendirHandle asks for
	}
	return m.side(in.NodeId).OpenDir(cancel, in, out)
}

func (m *mux) ReleaseDir(in *fuse.ReleaseIn) { m.side(in.NodeId).ReleaseDir(in) }

func (m *mux) FsyncDir(cancel <-chan struct{}, in *fuse.FsyncIn) fuse.Status {
	return m.side(in.NodeId).FsyncDir(cancel, in)
}

func (m *mux) StatFs(cancel <-chan struct{}, h *fuse.InHeader, out *fuse.StatfsOut) fuse.Status {
	return m.side(h.NodeId).StatFs(cancel, h, out)
}
