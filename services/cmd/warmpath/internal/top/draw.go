package top

import (
	"fmt"
	"math"
	"strings"
	"time"
	"unicode"

	"charm.land/lipgloss/v2"
)

// look is the styles of a frame: the terminal's own sixteen colours, so that they fit its background.
type look struct {
	plain, strong, faint, good, warn, bad, need lipgloss.Style
}

func newLook() look {
	colour := func(n string) lipgloss.Style { return lipgloss.NewStyle().Foreground(lipgloss.Color(n)) }
	return look{
		plain: lipgloss.NewStyle(), strong: lipgloss.NewStyle().Bold(true), faint: lipgloss.NewStyle().Faint(true),
		good: colour("2"), warn: colour("3"), bad: colour("1").Bold(true), need: colour("6"),
	}
}

// row is one line under construction; it never grows wider than it was made.
type row struct {
	text strings.Builder
	left int // cells
}

func newRow(width int) *row { return &row{left: width} }

// put writes as much of s as there is room for.
func (r *row) put(style lipgloss.Style, s string) *row {
	s = cut(clean(s), r.left)
	r.left -= lipgloss.Width(s)
	r.text.WriteString(style.Render(s))
	return r
}

// cell writes s in exactly width cells and one to the next: what is too long ends in an ellipsis.
func (r *row) cell(style lipgloss.Style, s string, width int) *row {
	s = clean(s)
	if lipgloss.Width(s) > width {
		s = cut(s, width-1) + "…"
	}
	pad := strings.Repeat(" ", width-lipgloss.Width(s)+1)
	return r.put(style, s).put(lipgloss.Style{}, pad)
}

// number is a cell that is aligned at its right.
func (r *row) number(style lipgloss.Style, s string, width int) *row {
	return r.put(lipgloss.Style{}, strings.Repeat(" ", max(0, width-lipgloss.Width(s)))).put(style, s).put(lipgloss.Style{}, " ")
}

func (r *row) String() string { return r.text.String() }

// clean takes out what a terminal would obey: names come from others.
func clean(s string) string {
	return strings.Map(func(r rune) rune {
		if unicode.IsGraphic(r) {
			return r
		}
		return '?'
	}, s)
}

// cut keeps what fits in width cells.
func cut(s string, width int) string {
	if width <= 0 {
		return ""
	}
	if lipgloss.Width(s) <= width {
		return s
	}
	kept, n := 0, 0
	for i, r := range s {
		if n += lipgloss.Width(string(r)); n > width {
			break
		}
		kept = i + len(string(r))
	}
	return s[:kept]
}

var eighths = []rune("▁▂▃▄▅▆▇█")

// spark draws values from zero to top in rows lines, one a cell; what is not a number is a gap.
func spark(values []float64, top float64, rows int) []string {
	lines := make([]string, rows)
	for _, v := range values {
		filled := 0 // eighths of a cell, from the ground
		if !math.IsNaN(v) {
			filled = 1
			if top > 0 {
				filled = max(1, int(math.Ceil(min(1, v/top)*float64(rows*len(eighths)))))
			}
		}
		for i := range lines {
			switch n := filled - (rows-1-i)*len(eighths); {
			case n <= 0:
				lines[i] += " "
			default:
				lines[i] += string(eighths[min(n, len(eighths))-1])
			}
		}
	}
	return lines
}

// bar fills width cells by the share of one.
func bar(share float64, width int) string {
	full := int(math.Round(max(0, min(1, share)) * float64(width)))
	return strings.Repeat("▆", full) + strings.Repeat("·", width-full)
}

// quantity writes v in at most five cells.
func quantity(v float64) string {
	switch a := math.Abs(v); {
	case a >= 99.95e6:
		return fmt.Sprintf("%.0fM", v/1e6)
	case a >= 999.5e3:
		return fmt.Sprintf("%.1fM", v/1e6)
	case a >= 99.95e3:
		return fmt.Sprintf("%.0fk", v/1e3)
	case a >= 999.5:
		return fmt.Sprintf("%.1fk", v/1e3)
	case a >= 99.95 || a == math.Trunc(a):
		return fmt.Sprintf("%.0f", v)
	}
	return fmt.Sprintf("%.1f", v)
}

// known writes what may not be known.
func known(n *int) string {
	if n == nil {
		return "-"
	}
	return quantity(float64(*n))
}

func percent(share *float64) string {
	if share == nil {
		return "-"
	}
	return fmt.Sprintf("%.0f %%", 100**share)
}

// rare writes a share of which small ones matter.
func rare(share float64) string {
	switch {
	case share > 0 && share < .0001:
		return "<0.01 %"
	case share < .0995:
		return fmt.Sprintf("%.2g %%", 100*share)
	}
	return fmt.Sprintf("%.0f %%", 100*share)
}

// age writes seconds as people say them.
func age(seconds float64) string {
	d := time.Duration(seconds * float64(time.Second))
	switch {
	case d < 0:
		return "0 s"
	case d < 2*time.Minute:
		return fmt.Sprintf("%.0f s", d.Seconds())
	case d < 2*time.Hour:
		return fmt.Sprintf("%.0f min", d.Minutes())
	}
	return fmt.Sprintf("%.0f h", d.Hours())
}
