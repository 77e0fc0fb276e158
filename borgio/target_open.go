package borgio

import (
	"context"
	"fmt"
)

// openTarget takes the lock of the repository.
func (r *Repository) openTarget(context.Context, WriteOptions) (target, error) {
	return nil, fmt.Errorf("%w: it cannot be written to yet", ErrUnsupported)
}

// createStore makes an empty repository and holds its lock.
func createStore(context.Context, Location, CreateOptions) (target, ID, error) {
	return nil, ID{}, fmt.Errorf("%w: it cannot be created yet", ErrUnsupported)
}
