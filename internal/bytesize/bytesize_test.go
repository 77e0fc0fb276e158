package bytesize

import (
	"strings"
	"testing"
)

func TestParse(t *testing.T) {
	for text, want := range map[string]int64{
		"0":                   0,
		"21474836480":         20 << 30,
		"1K":                  1 << 10,
		"512M":                512 << 20,
		"512m":                512 << 20,
		"20G":                 20 << 30,
		"20GiB":               20 << 30,
		"20gib":               20 << 30,
		"1.5T":                3 << 39,
		"0.1K":                102,
		"2P":                  2 << 50,
		"9223372036854775807": 1<<63 - 1,
	} {
		if got, err := Parse(text); err != nil || got != want {
			t.Errorf("%q: %d, %v; want %d", text, got, err, want)
		}
	}
	for _, text := range []string{
		"", "G", ".5G", "5.G", "1.2.3G", "-5G", "+5G", "20 G", " 20G", "20X", "20GB", "20Gi", "20iB", "20GG", "1e9", "0x10",
		"8192P", "9223372036854775808", "٣G", "20K\x00", strings.Repeat("9", 1000), "20Gı",
	} {
		if got, err := Parse(text); err == nil {
			t.Errorf("%q was taken for %d", text, got)
		} else if !strings.Contains(err.Error(), "20G") {
			t.Errorf("%q: the error names no good form: %v", text, err)
		}
	}
}

func FuzzParse(f *testing.F) {
	for _, s := range []string{"20G", "1.5TiB", "0", "9223372036854775807", "20GB", "-1", ".", "0.0000000001P"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, text string) {
		n, err := Parse(text)
		if err == nil && (n < 0 || text == "") {
			t.Errorf("%q is %d", text, n)
		}
	})
}
