// Package owner remembers what users and groups are called on this host.
package owner

import (
	"os/user"
	"strconv"
	"sync"
)

// Names gives names for numbers, asking the system for each but once. The zero
// value is ready; it is safe for concurrent use.
type Names struct {
	mu            sync.Mutex // guards what follows
	users, groups map[uint32]string
}

// User is the name of a user, "" where there is none.
func (n *Names) User(id uint32) string {
	return n.named(&n.users, id, func(id string) (string, error) {
		u, err := user.LookupId(id)
		if err != nil {
			return "", err
		}
		return u.Username, nil
	})
}

// Group is the name of a group, "" where there is none.
func (n *Names) Group(id uint32) string {
	return n.named(&n.groups, id, func(id string) (string, error) {
		g, err := user.LookupGroupId(id)
		if err != nil {
			return "", err
		}
		return g.Name, nil
	})
}

func (n *Names) named(known *map[uint32]string, id uint32, ask func(id string) (string, error)) string {
	n.mu.Lock()
	defer n.mu.Unlock()
	name, ok := (*known)[id]
	if !ok {
		name, _ = ask(strconv.FormatUint(uint64(id), 10)) // nobody's
		if *known == nil {
			*known = map[uint32]string{}
		}
		(*known)[id] = name
	}
	return name
}
