package dockertest

import (
	"archive/tar"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"time"
)

// Box is the image with the program box alone, which is its entry point; see
// the command's own comment for what it can do. It is made when first asked
// for.
func (e *Engine) Box() string {
	e.tb.Helper()
	const image = "s4-box"
	if _, err := e.Try("image", "inspect", image); err == nil {
		return image
	}
	_, here, _, _ := runtime.Caller(0)
	binary := filepath.Join(e.dir, "box")
	e.Build(filepath.Join(filepath.Dir(here), "box"), binary)
	e.Import(image, map[string]string{"/box": binary}, `ENTRYPOINT ["/box"]`)
	return image
}

// Build compiles the Go command in the directory into a program that needs
// nothing else, as an image from scratch has nothing else.
func (e *Engine) Build(dir, binary string) {
	e.tb.Helper()
	cmd := exec.CommandContext(e.tb.Context(), "go", "build", "-o", binary, ".")
	cmd.Dir = dir
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		e.tb.Fatalf("build %s: %v: %s", dir, err, out)
	}
}

// Import makes an image of these files alone, each from a file of the host with
// its mode. The changes are lines of a Dockerfile.
func (e *Engine) Import(image string, files map[string]string, changes ...string) {
	e.tb.Helper()
	e.importTar(image, func(t *tar.Writer) error {
		for name, source := range files {
			if err := packFile(t, strings.TrimPrefix(name, "/"), source); err != nil {
				return fmt.Errorf("pack %s: %w", source, err)
			}
		}
		return nil
	}, changes...)
}

// importTar makes an image of what pack writes.
func (e *Engine) importTar(image string, pack func(*tar.Writer) error, changes ...string) {
	e.tb.Helper()
	args := []string{"import"}
	for _, c := range changes {
		args = append(args, "--change", c)
	}
	ctx, cancel := context.WithTimeout(e.tb.Context(), 5*time.Minute)
	defer cancel()
	cmd := e.Command(ctx, append(args, "-", image)...)
	read, write := io.Pipe()
	cmd.Stdin = read
	go func() {
		t := tar.NewWriter(write)
		write.CloseWithError(errors.Join(pack(t), t.Close()))
	}()
	if out, err := cmd.CombinedOutput(); err != nil {
		e.tb.Fatalf("docker import %s: %v: %s", image, err, out)
	}
}

func packFile(t *tar.Writer, name, source string) error {
	f, err := os.Open(source)
	if err != nil {
		return err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return err
	}
	if err := t.WriteHeader(&tar.Header{Name: name, Mode: int64(info.Mode().Perm()), Size: info.Size(), Typeflag: tar.TypeReg}); err != nil {
		return err
	}
	_, err = io.Copy(t, f)
	return err
}
