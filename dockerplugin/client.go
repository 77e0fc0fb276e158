package dockerplugin

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/http"

	"github.com/s4-storage/s4/internal/hint"
	"github.com/s4-storage/s4/snapshot"
)

// Client calls a driver as the engine does, and for what only s4 asks.
type Client struct {
	socket string
	http   *http.Client
}

// NewClient makes a client of the driver at a socket. Nothing is connected to
// yet.
func NewClient(socket string) *Client {
	return &Client{socket, &http.Client{Transport: &http.Transport{DisableKeepAlives: true,
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return new(net.Dialer).DialContext(ctx, "unix", socket)
		}}}}
}

// Create makes a volume: see [Driver.Create].
func (c *Client) Create(ctx context.Context, name string, options map[string]string) error {
	_, err := c.call(ctx, "VolumeDriver.Create", request{Name: name, Opts: options})
	return err
}

// Remove moves a volume into the trash: see [Driver.Remove].
func (c *Client) Remove(ctx context.Context, name string) error {
	_, err := c.call(ctx, "VolumeDriver.Remove", request{Name: name})
	return err
}

// Mount makes a volume usable, for the use id: see [Driver.Mount].
func (c *Client) Mount(ctx context.Context, name, id string) (string, error) {
	r, err := c.call(ctx, "VolumeDriver.Mount", request{Name: name, ID: id})
	return r.Mountpoint, err
}

// Unmount ends the use id: see [Driver.Unmount].
func (c *Client) Unmount(ctx context.Context, name, id string) error {
	_, err := c.call(ctx, "VolumeDriver.Unmount", request{Name: name, ID: id})
	return err
}

// Exchange lets two volumes change their contents: see [Driver.Exchange].
func (c *Client) Exchange(ctx context.Context, one, two string) error {
	_, err := c.call(ctx, exchangeCall, request{Name: one, With: two})
	return err
}

// Restore brings a volume back to a snapshot on this host: see [Driver.Restore].
func (c *Client) Restore(ctx context.Context, name, when string) (Restored, error) {
	r, err := c.call(ctx, restoreCall, request{Name: name, When: when})
	if err != nil || r.Restored == nil {
		return Restored{}, err
	}
	return *r.Restored, nil
}

// Resize changes a volume's size: see [Driver.Resize].
func (c *Client) Resize(ctx context.Context, name, size string) error {
	_, err := c.call(ctx, resizeCall, request{Name: name, Size: size})
	return err
}

// call makes one call. Errors: snapshot.ErrUnreachable where no driver answers;
// what the driver says.
func (c *Client) call(ctx context.Context, name string, r request) (response, error) {
	body, err := json.Marshal(r)
	if err != nil {
		return response{}, err
	}
	post, err := http.NewRequestWithContext(ctx, http.MethodPost, "http://plugin/"+name, bytes.NewReader(body))
	if err != nil {
		return response{}, err
	}
	answer, err := c.http.Do(post)
	if ctx.Err() != nil {
		return response{}, ctx.Err()
	}
	if err != nil {
		text := "install it with: sudo s4 docker plugin install"
		if errors.Is(err, fs.ErrPermission) {
			text = "only root may; try again with sudo"
		}
		return response{}, hint.With(fmt.Errorf("%w: s4's volume driver does not answer at %s", snapshot.ErrUnreachable, c.socket), text)
	}
	defer answer.Body.Close()
	var got response
	if err := json.NewDecoder(io.LimitReader(answer.Body, maxRequest)).Decode(&got); err != nil {
		return response{}, fmt.Errorf("the volume driver's answer to %s: %w", name, err)
	}
	if got.Err != "" {
		return response{}, fmt.Errorf("the volume driver: %s", got.Err)
	}
	return got, nil
}
