package top

import (
	"fmt"
	"strings"
	"time"

	"charm.land/lipgloss/v2"

	"github.com/warmpath/warmpath/libs/fleet"
	"github.com/warmpath/warmpath/services/autoscaler/decide"
)

// engines lists engines in at most lines lines.
func (f *frame) engines(pool *Pool, engines []Engine, lines int) {
	if f.tall() {
		f.blank()
	}
	if lines < 1 {
		return
	}
	const fixed = 1 + 8 + 9 + 7 + 9 + 9 + 6 + 6
	name := max(12, min(longest(engines)+1, (f.width-fixed)*2/3))
	load := max(0, f.width-fixed-name-2)
	r := f.row().put(f.faint, " ").cell(f.faint, fmt.Sprintf("ENGINE (%d)", len(engines)), name).cell(f.faint, "ROLE", 7).cell(f.faint, "STATE", 8)
	r.number(f.faint, "FLIGHT", 6).number(f.faint, "BACKLOG", 8).number(f.faint, "DECODING", 8).number(f.faint, "KV", 5)
	f.add(r.number(f.faint, "LOAD", 5))
	shown := engines
	if len(engines) > lines {
		shown = engines[:max(0, lines-1)]
	}
	for i := range shown {
		e := &shown[i]
		style, state := f.state(e)
		r := f.row().put(f.plain, " ").cell(f.plain, e.Name, name).cell(f.faint, string(e.Role), 7).cell(style, state, 8)
		r.number(f.plain, known(e.Inflight), 6).number(f.plain, known(e.Backlog), 8).number(f.plain, known(e.Decoding), 8)
		r.number(f.plain, percent(e.KV), 5).number(f.plain, percent(e.Load), 5)
		if e.Load != nil {
			r.put(f.level(*e.Load), bar(*e.Load, min(load, 40)))
		}
		if e.Why != "" && e.State != fleet.OK {
			r.put(f.warn, " "+e.Why)
		}
		f.add(r)
	}
	if hidden := len(engines) - len(shown); hidden > 0 {
		f.add(f.row().put(f.faint, fmt.Sprintf(" and %d more", hidden)))
	}
	if len(engines) == 0 {
		f.add(f.row().put(f.warn, " no engine: requests of "+pool.Model+" wait at the routers"))
	}
}

func longest(engines []Engine) int {
	n := 0
	for i := range engines {
		n = max(n, lipgloss.Width(clean(engines[i].Name)))
	}
	return n
}

// state is how an engine's state is shown: that it drains counts more than that it is known.
func (f *frame) state(e *Engine) (lipgloss.Style, string) {
	switch {
	case e.State == fleet.Gone:
		return f.faint, string(e.State)
	case e.Draining:
		return f.need, "draining"
	case e.State == fleet.OK:
		return f.good, string(e.State)
	case e.State == fleet.Silent:
		return f.bad, string(e.State)
	}
	return f.warn, string(e.State)
}

func (f *frame) level(load float64) lipgloss.Style {
	switch {
	case load > 1:
		return f.bad
	case load > .8:
		return f.warn
	}
	return f.good
}

// decisions lists the newest changes in lines lines.
func (f *frame) decisions(p *Picture, pool *Pool, lines int) {
	if f.room() < 1 || lines < 1 {
		return
	}
	if f.tall() {
		f.blank()
	}
	f.add(f.row().put(f.faint, " DECISIONS"))
	for _, c := range pool.Decisions[:min(lines, len(pool.Decisions))] {
		r := f.row().put(f.faint, " "+c.At.In(p.At.Location()).Format(time.TimeOnly)+" ")
		switch {
		case c.Role == "" && c.Blind != "":
			r.put(f.bad, "blind: "+c.Blind)
		case c.Role == "":
			r.put(f.plain, "it sees everything; scaling is "+modeName(c.Mode))
		default:
			style, sign := f.need, "↑"
			if c.To < c.From {
				style, sign = f.good, "↓"
			}
			r.cell(f.plain, string(c.Role), 7).put(style, fmt.Sprintf("%s %d → %d", sign, c.From, c.To)).put(f.plain, "  "+c.Rule)
			if len(c.Blocked) > 0 {
				r.put(f.warn, "  blocked: "+strings.Join(c.Blocked, "; "))
			}
		}
		f.add(r)
	}
}

func modeName(m decide.Mode) string {
	if m == "" {
		m = decide.Shadow
	}
	return string(m)
}
