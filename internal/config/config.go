// Package config reads and writes s4's configuration files. They have git's
// ini style, so `git config -f FILE -l` reads them too.
//
// A key is `section.name` or `section.subsection.name`; section and name are
// case-insensitive, the subsection is taken as it is (and may hold dots):
// `volume.name`, `remote.origin.url`. A key has one value, or is a list of some.
// Comments do not survive a change made by s4.
package config

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"iter"
	"os"
	"path/filepath"
	"strings"
	"unicode/utf8"

	gitconfig "github.com/go-git/go-git/v5/plumbing/format/config"

	"github.com/s4-storage/s4/internal/atomicfile"
)

// File is one configuration file. It is not safe for concurrent use.
type File struct {
	path string
	raw  *gitconfig.Config
}

// Load reads the file at path; a missing file is an empty configuration.
func Load(path string) (*File, error) {
	data, err := os.ReadFile(path)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("read configuration: %w", err)
	}
	f, err := Parse(data)
	if err != nil {
		return nil, fmt.Errorf("read configuration %s: %w", path, err)
	}
	f.path = path
	return f, nil
}

// Reload reads the file anew and forgets what was changed but not saved.
func (f *File) Reload() error {
	again, err := Load(f.path)
	if err == nil {
		f.raw = again.raw
	}
	return err
}

// Parse reads a configuration that lies in no file.
func Parse(data []byte) (*File, error) {
	raw := gitconfig.New()
	if err := gitconfig.NewDecoder(bytes.NewReader(data)).Decode(raw); err != nil {
		return nil, err
	}
	return &File{raw: raw}, nil
}

// Bytes is the configuration as it stands in a file.
func (f *File) Bytes() []byte {
	var b bytes.Buffer
	// A bytes.Buffer takes every write.
	_ = gitconfig.NewEncoder(&b).Encode(f.raw)
	return b.Bytes()
}

// Save replaces the file atomically, readable by all but for secrets kept
// elsewhere.
func (f *File) Save() error {
	if err := os.MkdirAll(filepath.Dir(f.path), 0o700); err != nil {
		return fmt.Errorf("write configuration: %w", err)
	}
	if err := atomicfile.Write(f.path, f.Bytes(), 0o644); err != nil {
		return fmt.Errorf("write configuration: %w", err)
	}
	return nil
}

// Get returns the value of key and whether it is set.
func (f *File) Get(key string) (string, bool) {
	k, err := splitKey(key)
	if err != nil {
		return "", false
	}
	options := f.options(k)
	if options == nil || !options.Has(k.name) {
		return "", false
	}
	return options.Get(k.name), true
}

// Values returns all values of key, in the file's order.
func (f *File) Values(key string) []string {
	k, err := splitKey(key)
	if err != nil {
		return nil
	}
	var values []string
	for _, o := range f.options(k) {
		if o.IsKey(k.name) {
			values = append(values, o.Value)
		}
	}
	return values
}

// SetAll makes values all that key has.
func (f *File) SetAll(key string, values []string) error {
	k, err := splitKey(key)
	if err != nil {
		return err
	}
	for _, value := range values {
		if err := storable(value); err != nil {
			return err
		}
	}
	if _, ok := f.Get(key); ok {
		if err := f.Unset(key); err != nil {
			return err
		}
	}
	for _, value := range values {
		f.raw.AddOption(k.section, k.subsection, k.name, value)
	}
	return nil
}

// Set gives key its one value.
func (f *File) Set(key, value string) error {
	k, err := splitKey(key)
	if err != nil {
		return err
	}
	if err := storable(value); err != nil {
		return err
	}
	f.raw.SetOption(k.section, k.subsection, k.name, value)
	return nil
}

// storable refuses what could not be read again.
func storable(value string) error {
	if !utf8.ValidString(value) || strings.ContainsAny(value, "\x00\r\ufeff") {
		return fmt.Errorf("a value has to be text in UTF-8: %q", value)
	}
	return nil
}

// Unset removes key; a section that has nothing left goes with it. A key that
// is not set gives fs.ErrNotExist.
func (f *File) Unset(key string) error {
	k, err := splitKey(key)
	if err != nil {
		return err
	}
	if _, ok := f.Get(key); !ok {
		return fmt.Errorf("%s is not set: %w", key, fs.ErrNotExist)
	}
	section := f.raw.Section(k.section)
	if k.subsection == "" {
		section.RemoveOption(k.name)
	} else if sub := section.Subsection(k.subsection).RemoveOption(k.name); len(sub.Options) == 0 {
		section.RemoveSubsection(k.subsection)
	}
	if len(section.Options) == 0 && len(section.Subsections) == 0 {
		f.raw.RemoveSection(k.section)
	}
	return nil
}

// RemoveSubsection removes `[section "name"]` with all it holds.
func (f *File) RemoveSubsection(section, name string) {
	f.raw.RemoveSubsection(section, name)
}

// Subsections names the `[section "…"]` there are, in the file's order.
func (f *File) Subsections(section string) []string {
	var names []string
	for _, s := range f.raw.Sections {
		if s.IsName(section) {
			for _, sub := range s.Subsections {
				names = append(names, sub.Name)
			}
		}
	}
	return names
}

// All yields every key with its value in the file's order.
func (f *File) All() iter.Seq2[string, string] {
	return func(yield func(string, string) bool) {
		for _, s := range f.raw.Sections {
			section := strings.ToLower(s.Name)
			for _, o := range s.Options {
				if !yield(section+"."+strings.ToLower(o.Key), o.Value) {
					return
				}
			}
			for _, sub := range s.Subsections {
				for _, o := range sub.Options {
					if !yield(section+"."+sub.Name+"."+strings.ToLower(o.Key), o.Value) {
						return
					}
				}
			}
		}
	}
}

type key struct{ section, subsection, name string }

func splitKey(s string) (key, error) {
	first, last := strings.IndexByte(s, '.'), strings.LastIndexByte(s, '.')
	if first <= 0 || last == len(s)-1 || strings.ContainsAny(s, "\n\x00") {
		return key{}, fmt.Errorf("not a configuration key: %q", s)
	}
	k := key{section: strings.ToLower(s[:first]), name: strings.ToLower(s[last+1:])}
	if last > first {
		k.subsection = s[first+1 : last]
	}
	if !isWord(k.section) || !isWord(k.name) {
		return key{}, fmt.Errorf("not a configuration key: %q", s)
	}
	return k, nil
}

// isWord tells whether git takes s as a section's or variable's name.
func isWord(s string) bool {
	for _, c := range s {
		if (c < 'a' || c > 'z') && (c < '0' || c > '9') && c != '-' {
			return false
		}
	}
	return s != "" && s[0] != '-'
}

func (f *File) options(k key) gitconfig.Options {
	for _, s := range f.raw.Sections {
		if !s.IsName(k.section) {
			continue
		}
		if k.subsection == "" {
			return s.Options
		}
		for _, sub := range s.Subsections {
			if sub.IsName(k.subsection) {
				return sub.Options
			}
		}
	}
	return nil
}
