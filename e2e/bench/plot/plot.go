// Package plot draws small charts as SVG: points joined by lines, over axes
// with few, round numbers. A picture carries its own background and follows
// the reader's choice of light or dark.
package plot

import (
	"fmt"
	"html"
	"io"
	"math"
	"strconv"
	"strings"
)

// Chart is one set of axes.
type Chart struct {
	Title  string
	X, Y   string // what the axes show
	Log    bool   // both axes, by powers of ten; all numbers must be above 0
	Series []Series
}

// Series is one line. With a single series its name is not shown, nor is that of
// one without points, whose colour stays free for another picture's.
type Series struct {
	Name   string
	Points []Point
}

// Point is one measured value.
type Point struct{ X, Y float64 }

// How large everything is, in px.
const (
	width, height      = 360, 270
	left, right        = 62, 16
	top, bottom        = 48, 48
	fontSize           = 12
	innerWidth         = width - left - right
	innerHeight        = height - top - bottom
	titleLine          = 18
	legendLine         = 36
	letter             = 7 // about as wide as one is
	radius             = 3
	tickLength         = 4
	labelGap           = 7
	linearTicks        = 5
	maxRadiusPoints    = 12 // with more of them, points are small
	radiusOfManyPoints = 1.8
)

const style = `<style>
svg{font-family:system-ui,sans-serif;font-size:12px}
.page{fill:#fff}.ink{fill:#1f2328}.soft{fill:#59636e}
.axis{stroke:#59636e;fill:none}.grid{stroke:#d1d9e0;fill:none}
.line{fill:none;stroke-width:2}.s0{stroke:#0969da}.s1{stroke:#bc4c00}.s2{stroke:#1a7f37}.s3{stroke:#8250df}.s4{stroke:#9a6700}
.d0{fill:#0969da}.d1{fill:#bc4c00}.d2{fill:#1a7f37}.d3{fill:#8250df}.d4{fill:#9a6700}
@media(prefers-color-scheme:dark){
.page{fill:#0d1117}.ink{fill:#e6edf3}.soft{fill:#9198a1}
.axis{stroke:#9198a1}.grid{stroke:#30363d}
.s0{stroke:#58a6ff}.s1{stroke:#f0883e}.s2{stroke:#3fb950}.s3{stroke:#a371f7}.s4{stroke:#d29922}
.d0{fill:#58a6ff}.d1{fill:#f0883e}.d2{fill:#3fb950}.d3{fill:#a371f7}.d4{fill:#d29922}
}
</style>
`

const colours = 5

// Draw writes a picture of charts side by side.
func Draw(w io.Writer, charts ...Chart) error {
	var b strings.Builder
	total := width * len(charts)
	fmt.Fprintf(&b, `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 %d %d" width="%[1]d" height="%d" role="img">`+"\n", total, height)
	b.WriteString(style)
	fmt.Fprintf(&b, `<rect class="page" width="%d" height="%d"/>`+"\n", total, height)
	for i, c := range charts {
		fmt.Fprintf(&b, `<g transform="translate(%d 0)">`+"\n", i*width)
		if err := c.draw(&b); err != nil {
			return fmt.Errorf("plot %s: %w", c.Title, err)
		}
		b.WriteString("</g>\n")
	}
	b.WriteString("</svg>\n")
	_, err := io.WriteString(w, b.String())
	return err
}

func (c Chart) draw(b *strings.Builder) error {
	x, err := c.axis(func(p Point) float64 { return p.X })
	if err != nil {
		return err
	}
	y, err := c.axis(func(p Point) float64 { return p.Y })
	if err != nil {
		return err
	}
	text(b, "ink", "middle", left+innerWidth/2, titleLine, c.Title)
	text(b, "soft", "middle", left+innerWidth/2, height-labelGap, c.X)
	fmt.Fprintf(b, `<text class="soft" text-anchor="middle" transform="translate(%d %d) rotate(-90)">%s</text>`+"\n",
		fontSize+2, top+innerHeight/2, html.EscapeString(c.Y))
	for _, v := range y.ticks {
		at := top + innerHeight*(1-y.place(v))
		fmt.Fprintf(b, `<path class="grid" d="M%d %.1fh%d"/>`, left, at, innerWidth)
		text(b, "soft", "end", left-labelGap, at+fontSize/3, Short(v))
	}
	for _, v := range x.ticks {
		at := left + innerWidth*x.place(v)
		fmt.Fprintf(b, `<path class="axis" d="M%.1f %dv%d"/>`, at, top+innerHeight, tickLength)
		text(b, "soft", "middle", at, top+innerHeight+tickLength+fontSize+1, Short(v))
	}
	fmt.Fprintf(b, `<path class="axis" d="M%d %dv%dh%d"/>`+"\n", left, top, innerHeight, innerWidth)
	legend := left
	for i, s := range c.Series {
		if len(s.Points) == 0 {
			continue
		}
		colour := i % colours
		r := float64(radius)
		if len(s.Points) > maxRadiusPoints {
			r = radiusOfManyPoints
		}
		var d strings.Builder
		for k, p := range s.Points {
			px, py := left+innerWidth*x.place(p.X), top+innerHeight*(1-y.place(p.Y))
			d.WriteString([]string{"L", "M"}[b2i(k == 0)])
			fmt.Fprintf(&d, "%.1f %.1f", px, py)
			fmt.Fprintf(b, `<circle class="d%d" cx="%.1f" cy="%.1f" r="%.1f"/>`, colour, px, py, r)
		}
		fmt.Fprintf(b, `<path class="line s%d" d="%s"/>`+"\n", colour, d.String())
		if len(c.Series) > 1 {
			text(b, fmt.Sprintf("d%d", colour), "start", float64(legend), legendLine, s.Name)
			legend += (len(s.Name) + 2) * letter
		}
	}
	return nil
}

func b2i(b bool) int {
	if b {
		return 1
	}
	return 0
}

func text(b *strings.Builder, class, anchor string, x, y float64, s string) {
	fmt.Fprintf(b, `<text class="%s" text-anchor="%s" x="%.1f" y="%.1f">%s</text>`+"\n", class, anchor, x, y, html.EscapeString(s))
}

// axis is the range of values that one axis shows.
type axis struct {
	low, high float64
	log       bool
	ticks     []float64
}

func (c Chart) axis(of func(Point) float64) (axis, error) {
	low, high, any := math.Inf(1), math.Inf(-1), false
	for _, s := range c.Series {
		for _, p := range s.Points {
			v := of(p)
			if math.IsNaN(v) || math.IsInf(v, 0) || c.Log && v <= 0 || v < 0 {
				return axis{}, fmt.Errorf("cannot show %v", v)
			}
			low, high, any = min(low, v), max(high, v), true
		}
	}
	if !any {
		return axis{}, fmt.Errorf("nothing to show")
	}
	if c.Log {
		return decades(low, high), nil
	}
	return fromZero(high), nil
}

// decades goes from a power of ten to another one.
func decades(low, high float64) axis {
	// What is a power of ten but for rounding is one.
	const almost = 1e-9
	from, to := math.Floor(math.Log10(low)+almost), math.Ceil(math.Log10(high)-almost)
	if from == to {
		to++
	}
	a := axis{low: from, high: to, log: true}
	for e := from; e <= to; e++ {
		a.ticks = append(a.ticks, math.Pow(10, e))
	}
	return a
}

// fromZero goes from 0 to a round number in steps of 1, 2 or 5.
func fromZero(high float64) axis {
	if high <= 0 {
		high = 1
	}
	step := math.Pow(10, math.Floor(math.Log10(high/linearTicks)))
	for _, m := range []float64{1, 2, 5, 10} {
		if step*m*linearTicks >= high {
			step *= m
			break
		}
	}
	n := math.Ceil(high/step - 1e-9)
	a := axis{high: n * step}
	for i := 0.0; i <= n; i++ {
		a.ticks = append(a.ticks, i*step)
	}
	return a
}

// place is where a value is, from 0 to 1.
func (a axis) place(v float64) float64 {
	if a.log {
		v = math.Log10(v)
	}
	return (v - a.low) / (a.high - a.low)
}

// Short writes a number in few letters: 1M, 250k, 0.02.
func Short(v float64) string {
	for _, u := range []struct {
		of   float64
		name string
	}{{1e9, "G"}, {1e6, "M"}, {1e3, "k"}} {
		if v >= u.of {
			return trim(v/u.of) + u.name
		}
	}
	return trim(v)
}

func trim(v float64) string {
	return strconv.FormatFloat(v, 'g', 4, 64)
}
