// Package bytesize reads sizes as people type them. Units are those of IEC
// 80000-13: a K is 1024 bytes, and so on.
package bytesize

import (
	"fmt"
	"math/big"
	"strings"
)

// Forms says in words what [Parse] takes.
const Forms = "a size is a number with K, M, G, T or P, such as 512M, 20G or 1.5T"

// maxLen is more than any size needs; it bounds the work on nonsense.
const maxLen = 32

// Parse reads a size in bytes: digits, at most one decimal point, and a unit
// K, M, G, T or P (also in lower case, or with iB, as in GiB) or none for
// bytes. GB and the like are refused, since people mean different things by
// them. A fraction of a byte is cut off.
func Parse(text string) (int64, error) {
	bad := func(why string) (int64, error) {
		return 0, fmt.Errorf("%q is no size: %s; %s", text, why, Forms)
	}
	if len(text) > maxLen {
		return bad("too long")
	}
	number, unit := text, ""
	if i := strings.IndexFunc(text, func(r rune) bool { return r != '.' && (r < '0' || r > '9') }); i >= 0 {
		number, unit = text[:i], text[i:]
	}
	whole, fraction, dotted := strings.Cut(number, ".")
	if whole == "" || dotted && (fraction == "" || strings.Contains(fraction, ".")) {
		return bad("it does not begin with a number")
	}
	shift := -1
	switch u := strings.ToUpper(unit); u {
	case "":
		shift = 0
	case "KB", "MB", "GB", "TB", "PB":
		return bad(fmt.Sprintf("write %c or %ciB", u[0], u[0]))
	default:
		if letter := strings.TrimSuffix(u, "IB"); len(letter) == 1 {
			shift = 10 * (strings.Index("KMGTP", letter) + 1)
		}
	}
	if shift <= 0 && unit != "" {
		return bad("no such unit")
	}
	r, ok := new(big.Rat).SetString(number)
	if !ok {
		return bad("no such number")
	}
	r.Mul(r, new(big.Rat).SetInt(new(big.Int).Lsh(big.NewInt(1), uint(shift))))
	n := new(big.Int).Quo(r.Num(), r.Denom())
	if !n.IsInt64() {
		return bad("too much")
	}
	return n.Int64(), nil
}
