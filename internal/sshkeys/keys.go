package sshkeys

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"strconv"
	"time"

	"golang.org/x/crypto/ssh"
	"golang.org/x/crypto/ssh/knownhosts"

	"github.com/s4-storage/s4/borgio"
	"github.com/s4-storage/s4/internal/atomicfile"
	"github.com/s4-storage/s4/internal/hint"
	"github.com/s4-storage/s4/snapshot"
)

// Ensure gives the public half of the ed25519 key in the file, which is
// made when it is not there. Errors: snapshot.ErrKey for a file that is no key.
func Ensure(file, comment string) (ssh.PublicKey, error) {
	data, err := os.ReadFile(file)
	if err == nil {
		return Public(file, data)
	}
	if !errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("read the ssh key: %w", err)
	}
	_, private, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		return nil, fmt.Errorf("make an ssh key: %w", err)
	}
	block, err := ssh.MarshalPrivateKey(private, comment)
	if err != nil {
		return nil, fmt.Errorf("make an ssh key: %w", err)
	}
	if err := atomicfile.Write(file, pem.EncodeToMemory(block), 0o600); err != nil {
		return nil, err
	}
	key, err := ssh.NewPublicKey(private.Public())
	if err != nil {
		return nil, fmt.Errorf("make an ssh key: %w", err)
	}
	line := string(bytes.TrimSpace(ssh.MarshalAuthorizedKey(key))) + " " + comment + "\n"
	return key, atomicfile.Write(file+".pub", []byte(line), 0o644)
}

// Public is the public half of the key that a file holds; the file is only named in
// errors. Errors: snapshot.ErrKey.
func Public(file string, data []byte) (ssh.PublicKey, error) {
	signer, err := ssh.ParsePrivateKey(data)
	if err != nil {
		return nil, fmt.Errorf("%w: %s is no ssh key without a passphrase: %w", snapshot.ErrKey, file, err)
	}
	return signer.PublicKey(), nil
}

// dialTime bounds a connection for the host's key alone.
const dialTime = 15 * time.Second

// Address is where the remote's sshd listens.
func Address(loc borgio.Location) string {
	port := loc.Port
	if port == 0 {
		port = 22
	}
	return net.JoinHostPort(loc.Host, strconv.Itoa(port))
}

// HostKey asks an sshd for its host key, as ssh-keyscan does.
// Errors: snapshot.ErrUnreachable.
func HostKey(ctx context.Context, address string) (ssh.PublicKey, error) {
	ctx, cancel := context.WithTimeout(ctx, dialTime)
	defer cancel()
	unreachable := func(err error) error {
		return fmt.Errorf("%w: ask %s for its host key: %w", snapshot.ErrUnreachable, address, err)
	}
	conn, err := new(net.Dialer).DialContext(ctx, "tcp", address)
	if err != nil {
		return nil, hint.With(unreachable(err), "it needs a name that is known without your ~/.ssh/config, and the port in ssh://USER@HOST:PORT/PATH")
	}
	defer conn.Close() //nolint:errcheck // nothing was said
	stop := context.AfterFunc(ctx, func() { _ = conn.Close() })
	defer stop()
	var key ssh.PublicKey
	seen := errors.New("seen")
	_, _, _, err = ssh.NewClientConn(conn, address, &ssh.ClientConfig{
		User:              "s4",
		HostKeyAlgorithms: []string{ssh.KeyAlgoED25519, ssh.KeyAlgoECDSA256, ssh.KeyAlgoECDSA384, ssh.KeyAlgoECDSA521, ssh.KeyAlgoRSASHA512, ssh.KeyAlgoRSASHA256},
		HostKeyCallback: func(_ string, _ net.Addr, k ssh.PublicKey) error {
			key = k
			return seen // it is all we came for
		},
	})
	if key == nil {
		return nil, unreachable(err)
	}
	return key, nil
}

// ErrNotPinned says that a known_hosts file has no key of the host.
var ErrNotPinned = errors.New("host key is not pinned")

// CheckPinned compares a host's key with those in a known_hosts file.
// Errors: ErrNotPinned; snapshot.ErrRefused for another key.
func CheckPinned(file, address string, key ssh.PublicKey) error {
	check, err := knownhosts.New(file)
	if errors.Is(err, fs.ErrNotExist) {
		return ErrNotPinned
	}
	if err != nil {
		return fmt.Errorf("read %s: %w", file, err)
	}
	err = check(address, &net.TCPAddr{}, key)
	if wrong, ok := errors.AsType[*knownhosts.KeyError](err); ok {
		if len(wrong.Want) == 0 {
			return ErrNotPinned
		}
		return hint.With(fmt.Errorf("%w: %s has another host key now: %s", snapshot.ErrRefused, address, ssh.FingerprintSHA256(key)),
			"if that is right, delete "+file+" and try again")
	}
	return err
}

// Pin adds the key to a known_hosts file.
func Pin(file, address string, key ssh.PublicKey) error {
	data, err := os.ReadFile(file)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("read %s: %w", file, err)
	}
	line := knownhosts.Line([]string{knownhosts.Normalize(address)}, key) + "\n"
	return atomicfile.Write(file, append(data, line...), 0o644)
}
