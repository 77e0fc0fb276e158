package dockerplugin

import (
	"fmt"
	"maps"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode"

	"github.com/s4-storage/s4/internal/bytesize"
	"github.com/s4-storage/s4/internal/reach"
	"github.com/s4-storage/s4/snapshot"
)

// Options are what `docker volume create -o KEY=VALUE` may say. They are
// comparable.
type Options struct {
	Size     int64         // size=5G: how much fits in; 0 leaves it to the backend
	Remote   string        // remote=s4@nas:/volumes: where it is pushed to and filled from
	Name     string        // name=shop: what it is called there; "" is as docker calls it
	Volume   string        // volume=db: the volume of this driver that it is filled from
	From     string        // from=TIME: the snapshot to fill it with; "" is the newest
	History  bool          // history=on: containers see .s4/history
	Compress string        // compress=zstd:3: on the host's disk; "" leaves it to the backend
	FillOnly bool          // replicate=off: filled from the remote, but never pushed to it
	Interval time.Duration // interval=5m: how often it is looked for changes to push; 0 leaves it to the backend
	Autogrow int64         // autogrow=50G: it grows by itself up to so many bytes; 0 is no limit, [NoGrowth] off
}

// NoGrowth is a volume that stays as large as it is.
const NoGrowth = -1

var (
	nameForm     = regexp.MustCompile(`^[a-zA-Z0-9][a-zA-Z0-9_.-]{0,127}$`)
	compressForm = regexp.MustCompile(`^(off|lzo|zlib(:[1-9])?|zstd(:([1-9]|1[0-5]))?)$`)
)

// CheckName tells whether a volume may have that name. What passes is also the
// name of a directory that is neither hidden nor above another. The error is a
// snapshot.ErrUsage.
func CheckName(name string) error {
	if name == "" {
		// The engine repeats a request that was not answered, without its body.
		return fmt.Errorf("%w: the request names no volume; if the driver was just restarted, try again", snapshot.ErrUsage)
	}
	if nameForm.MatchString(name) {
		return nil
	}
	if len(name) > 128 {
		return fmt.Errorf("%w: the volume's name %q… has %d characters, at most 128 are possible", snapshot.ErrUsage, name[:40], len(name))
	}
	return fmt.Errorf("%w: %q cannot be a volume's name: it begins with a letter or digit, and goes on with those, _, . and -", snapshot.ErrUsage, name)
}

// parsers set one option each.
var parsers = map[string]func(*Options, string) error{
	"size": func(o *Options, text string) (err error) {
		o.Size, err = parseSize(text)
		return err
	},
	"remote": func(o *Options, text string) error {
		loc, err := reach.ParseLocation(text)
		if err != nil {
			return err
		}
		switch {
		case loc.Archive != "":
			return fmt.Errorf("%q names an archive; from=TIME says which snapshot is wanted", text)
		case !loc.IsRemote() && !filepath.IsAbs(strings.TrimPrefix(text, "file://")): // the driver runs anywhere
			return fmt.Errorf("%q is neither user@host:/path nor an absolute path", text)
		}
		o.Remote = text
		return nil
	},
	"name": func(o *Options, text string) error {
		o.Name = text
		return CheckName(text)
	},
	"volume": func(o *Options, text string) error {
		o.Volume = text
		return CheckName(text)
	},
	"from": func(o *Options, text string) error {
		if text == "" || len(text) > 200 || strings.ContainsFunc(text, unicode.IsControl) {
			return fmt.Errorf("%.40q is no moment; latest, 2026-11-22 or 2h are", text)
		}
		o.From = text
		return nil
	},
	"history": func(o *Options, text string) error {
		if text != "on" && text != "off" {
			return fmt.Errorf("it is on or off, not %.40q", text)
		}
		o.History = text == "on"
		return nil
	},
	"replicate": func(o *Options, text string) error {
		if text != "on" && text != "off" {
			return fmt.Errorf("it is on or off, not %.40q", text)
		}
		o.FillOnly = text == "off"
		return nil
	},
	"compress": func(o *Options, text string) error {
		if !compressForm.MatchString(text) {
			return fmt.Errorf("%.40q is no way to compress; off, lzo, zlib, zstd or zstd:3 are", text)
		}
		o.Compress = text
		return nil
	},
	"interval": func(o *Options, text string) error {
		if n, err := strconv.Atoi(text); err == nil { // as `s4 config` takes it
			text = strconv.Itoa(n) + "s"
		}
		d, err := time.ParseDuration(text)
		if err != nil || d <= 0 {
			return fmt.Errorf("%.40q is no time; 30s, 5m or 1h are", text)
		}
		o.Interval = d
		return nil
	},
	"autogrow": func(o *Options, text string) (err error) {
		switch text {
		case "off":
			o.Autogrow = NoGrowth
		case "on":
			o.Autogrow = 0
		default:
			o.Autogrow, err = parseSize(text)
		}
		return err
	},
}

func parseSize(text string) (int64, error) {
	n, err := bytesize.Parse(text)
	if err == nil && n == 0 {
		err = fmt.Errorf("nothing fits into 0 bytes; %s", bytesize.Forms)
	}
	return n, err
}

// ParseOptions reads the options of a volume. The error is a snapshot.ErrUsage
// that tells all there are where one is unknown.
func ParseOptions(given map[string]string) (Options, error) {
	var o Options
	for _, key := range slices.Sorted(maps.Keys(given)) {
		parse, ok := parsers[key]
		if !ok {
			return Options{}, fmt.Errorf("%w: unknown option %.40q; there are %s", snapshot.ErrUsage, key,
				strings.Join(slices.Sorted(maps.Keys(parsers)), ", "))
		}
		if err := parse(&o, given[key]); err != nil {
			return Options{}, fmt.Errorf("%w: option %s: %w", snapshot.ErrUsage, key, err)
		}
	}
	switch {
	case o.From != "" && o.Remote == "" && o.Volume == "":
		return Options{}, fmt.Errorf("%w: option from needs a remote, or a volume, to bring the snapshot from", snapshot.ErrUsage)
	case o.Remote != "" && o.Volume != "":
		return Options{}, fmt.Errorf("%w: options remote and volume: it can be filled from one of them only", snapshot.ErrUsage)
	case o.Autogrow > 0 && o.Autogrow < o.Size:
		return Options{}, fmt.Errorf("%w: option autogrow: its limit is below the size", snapshot.ErrUsage)
	}
	return o, nil
}

// differing names the options that are not the same in both.
func differing(have, want map[string]string) string {
	all := maps.Clone(have)
	if all == nil {
		all = map[string]string{}
	}
	maps.Copy(all, want)
	var out []string
	for _, key := range slices.Sorted(maps.Keys(all)) {
		if a, b := have[key], want[key]; a != b {
			out = append(out, fmt.Sprintf("%s is %q, not %q", key, a, b))
		}
	}
	return strings.Join(out, ", ")
}
