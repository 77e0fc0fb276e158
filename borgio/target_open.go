package borgio

import "context"

// openTarget takes the lock of the repository.
func (r *Repository) openTarget(ctx context.Context, o WriteOptions) (target, error) {
	if r.loc.IsRemote() {
		return r.beginRemote(ctx, o.LockWait)
	}
	return r.beginLocal(ctx, o.LockWait)
}

// createStore makes an empty repository and holds its lock.
func createStore(ctx context.Context, loc Location, o CreateOptions) (target, ID, error) {
	return createTarget(ctx, loc, o.Options, creation{makeParents: o.Parents})
}
