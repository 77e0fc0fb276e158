package borgcmd

import (
	"context"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

func needBorg(t *testing.T) *Runner {
	t.Helper()
	if _, err := exec.LookPath("borg"); err != nil {
		if os.Getenv("CI") == "true" {
			t.Fatal(err)
		}
		t.Skip("borg is not installed")
	}
	return &Runner{Env: append(os.Environ(), "BORG_BASE_DIR="+t.TempDir(), "BORG_UNKNOWN_UNENCRYPTED_REPO_ACCESS_IS_OK=yes")}
}

func TestErrorsAreTyped(t *testing.T) {
	r := needBorg(t)
	missing := filepath.Join(t.TempDir(), "none")
	_, err := r.Run(t.Context(), Events{}, "list", missing)
	failure, ok := errors.AsType[*Error](err)
	if !ok {
		t.Fatalf("got %v, want *Error", err)
	}
	if failure.Command != "list" || failure.Code != 2 || failure.ID != "Repository.DoesNotExist" || !strings.Contains(failure.Message, missing) {
		t.Errorf("got %+v", failure)
	}
}

func TestPassphraseProgressAndWarnings(t *testing.T) {
	r := needBorg(t)
	r.Passphrase = []byte("correct horse")
	repo, tree := filepath.Join(t.TempDir(), "repo"), t.TempDir()
	if err := os.WriteFile(filepath.Join(tree, "file"), []byte("content"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := r.Run(t.Context(), Events{}, "init", "-e", "repokey-blake2", repo); err != nil {
		t.Fatal(err)
	}
	r.Dir = tree
	var seen []Progress
	var warnings []string
	events := Events{
		Progress: func(p Progress) { seen = append(seen, p) },
		Warning:  func(text string) { warnings = append(warnings, text) },
	}
	if _, err := r.Run(t.Context(), events, "create", "--progress", repo+"::a", ".", "absent"); err != nil {
		t.Fatal(err)
	}
	if len(seen) == 0 {
		t.Error("no progress was reported")
	}
	if len(warnings) != 1 || !strings.Contains(warnings[0], "absent") {
		t.Errorf("warnings: %q", warnings)
	}
	r.Passphrase = []byte("wrong")
	_, err := r.Run(t.Context(), Events{}, "list", repo)
	if failure, ok := errors.AsType[*Error](err); !ok || failure.ID != "PassphraseWrong" {
		t.Errorf("wrong passphrase: %v", err)
	}
}

// A canceled run ends soon, and its repository can be used at once.
func TestCancel(t *testing.T) {
	r := needBorg(t)
	repo := filepath.Join(t.TempDir(), "repo")
	if _, err := r.Run(t.Context(), Events{}, "init", "-e", "none", repo); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	began := time.Now()
	_, err := r.Run(ctx, Events{Progress: func(Progress) { cancel() }}, "create", "--progress", "--read-special", repo+"::a", "/dev/zero")
	if !errors.Is(err, context.Canceled) {
		t.Errorf("got %v", err)
	}
	if took := time.Since(began); took > stopGrace {
		t.Errorf("took %v to stop", took)
	}
	if _, err := r.Run(t.Context(), Events{}, "list", repo); err != nil {
		t.Errorf("after it: %v", err)
	}
}
