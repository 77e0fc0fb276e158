package dockerplugin

import (
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/s4-storage/s4/snapshot"
)

func TestParseOptions(t *testing.T) {
	all := given{"size": "5G", "remote": "s4@nas:/volumes", "from": "2h", "history": "on", "compress": "zstd:3", "replicate": "off", "name": "shop", "interval": "5m", "autogrow": "50G"}
	want := Options{Size: 5 << 30, Remote: "s4@nas:/volumes", From: "2h", History: true, Compress: "zstd:3", FillOnly: true, Name: "shop",
		Interval: 5 * time.Minute, Autogrow: 50 << 30}
	if got, err := ParseOptions(all); err != nil || got != want {
		t.Errorf("%+v, %v", got, err)
	}
	if got, err := ParseOptions(given{"interval": "90", "autogrow": "off", "history": "off"}); err != nil || got != (Options{Interval: 90 * time.Second, Autogrow: NoGrowth}) {
		t.Errorf("%+v, %v", got, err)
	}
	for says, o := range map[string]given{
		"there are autogrow, compress, from, history, interval, name, remote, replicate, size, volume": {"sise": "5G"},
		"option size: \"5GB\" is no size":              {"size": "5GB"},
		"option size: \"\" is no size":                 {"size": ""},
		"nothing fits":                                 {"size": "0"},
		"option remote":                                {"remote": ""},
		"neither user@host:/path nor an absolute path": {"remote": "volumes"},
		"names an archive":                             {"remote": "nas:/r::a"},
		"needs a remote":                               {"from": "2h"},
		"one of them only":                             {"remote": "/r", "volume": "db"},
		"option volume":                                {"volume": "../db"},
		"is no moment":                                 {"from": "a\nb", "remote": "/r"},
		"on or off":                                    {"history": "yes"},
		"no way to compress":                           {"compress": "zstd,ro"},
		"cannot be a volume's name":                    {"name": "../x"},
		"is no time":                                   {"interval": "-5s"},
		"below the size":                               {"size": "5G", "autogrow": "4G"},
	} {
		_, err := ParseOptions(o)
		fails(t, err, snapshot.ErrUsage, says)
	}
}

func TestCheckName(t *testing.T) {
	for _, name := range []string{"a", "0", "db.1_x-y", strings.Repeat("n", 128)} {
		if err := CheckName(name); err != nil {
			t.Error(err)
		}
	}
	for _, name := range []string{"", ".", "..", "../x", "x/y", "-x", "_x", ".x", "a b", "a\n", "ä", "a\x00", strings.Repeat("n", 129), strings.Repeat("n", 300)} {
		if err := CheckName(name); !errors.Is(err, snapshot.ErrUsage) || len(err.Error()) > 250 {
			t.Errorf("%.40q: %v", name, err)
		}
	}
}
