package lock

import (
	"cmp"
	"context"
	"encoding/binary"
	"fmt"
	"net"
	"os"
	"strings"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// resolvePatience bounds how long a name server is waited for. Without its
// answer locks are still exclusive; but those that a crash leaves behind are
// not known to be this host's by who got one.
const resolvePatience = 5 * time.Second

// hostID is what Borg calls this host.
func hostID(ctx context.Context, environ func(string) (string, bool)) (string, error) {
	if id, _ := environ("BORG_HOST_ID"); id != "" {
		return id, nil
	}
	name, err := os.Hostname()
	if err != nil {
		return "", fmt.Errorf("name of this host: %w", err)
	}
	ctx, cancel := context.WithTimeout(ctx, resolvePatience)
	defer cancel()
	full, _ := net.DefaultResolver.LookupCNAME(ctx, name) // Borg too makes do with the short name
	node, err := nodeNumber()
	if err != nil {
		return "", fmt.Errorf("number of this host: %w", err)
	}
	return fmt.Sprintf("%s@%d", cmp.Or(strings.TrimSuffix(full, "."), name), node), nil
}

// interfaceRequest is the kernel's struct ifreq; interfaceList is struct ifconf.
type (
	interfaceRequest struct {
		name [unix.IFNAMSIZ]byte
		data [unsafe.Sizeof(unix.Ifreq{}) - unix.IFNAMSIZ]byte
	}
	interfaceList struct {
		bytes int32
		list  unsafe.Pointer
	}
)

// listedInterfaces is how many interfaces libuuid asks for: what fits 1024 bytes.
const listedInterfaces = 1024 / int(unsafe.Sizeof(interfaceRequest{}))

// nodeNumber is what Python's uuid.getnode gives, as it does by libuuid: the
// hardware address of the first interface that has one, among those with an
// IPv4 address. Where there is none, Borg takes a number by chance, another one
// in each process, so that no lock of it is ever known to be stale; here it is 0,
// which is none that Borg takes.
func nodeNumber() (uint64, error) {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return 0, err
	}
	defer func() { _ = unix.Close(fd) }()
	ioctl := func(request uintptr, arg unsafe.Pointer) error {
		if _, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(fd), request, uintptr(arg)); errno != 0 {
			return errno
		}
		return nil
	}
	var found [listedInterfaces]interfaceRequest
	list := interfaceList{int32(unsafe.Sizeof(found)), unsafe.Pointer(&found)}
	if err := ioctl(unix.SIOCGIFCONF, unsafe.Pointer(&list)); err != nil {
		return 0, err
	}
	for i := range int(list.bytes) / int(unsafe.Sizeof(found[0])) {
		request := interfaceRequest{name: found[i].name}
		if ioctl(unix.SIOCGIFHWADDR, unsafe.Pointer(&request)) != nil {
			continue
		}
		address := [8]byte{}
		copy(address[2:], request.data[2:8]) // after the address family
		if node := binary.BigEndian.Uint64(address[:]); node != 0 {
			return node, nil
		}
	}
	return 0, nil
}
