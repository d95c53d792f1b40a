package top

import (
	"cmp"
	"fmt"
	"math"
	"slices"
	"strings"
	"time"

	"charm.land/lipgloss/v2"

	"github.com/warmpath/warmpath/libs/fleet"
	"github.com/warmpath/warmpath/services/autoscaler/decide"
)

// Order is how a frame sorts engines.
type Order int

// The orders.
const (
	ByName  Order = iota
	ByLoad        // the busiest first
	ByState       // those that need a look first
)

func (o Order) String() string { return [...]string{"name", "load", "state"}[o] }

// Show is what of a picture is drawn.
type Show struct {
	Pool  string // id; one that is not there is the first
	Order Order
	Help  bool
}

// tall is from how many lines on a frame shows what explains a decision too.
const tall = 36

// frame is a frame under construction.
type frame struct {
	look
	width, height int // height 0 is as many as there are
	lines         []string
}

// Frame draws a picture in exactly height lines of at most width cells, or with height 0 in as many as it takes.
func Frame(p *Picture, s Show, width, height int) string {
	f := &frame{look: newLook(), width: width, height: height}
	f.header(p)
	pool, at := find(p.Pools, s.Pool)
	switch {
	case s.Help:
		f.help()
	case pool == nil && p.NATS.Up:
		f.blank().add(f.row().put(f.plain, " No pool yet: no engine has been met."))
	case pool != nil:
		f.pool(pool, at, len(p.Pools))
		f.body(p, pool, s)
	}
	for height > 0 && len(f.lines) < height-1 {
		f.lines = append(f.lines, "")
	}
	if height > 0 {
		f.lines = f.lines[:height-1]
	}
	keys := fmt.Sprintf(" q quit   ←→ tab pool   s sort (%s)   ? help", s.Order)
	f.add(f.row().put(f.faint, keys))
	return strings.Join(f.lines, "\n")
}

func (f *frame) row() *row { return newRow(f.width) }

func (f *frame) add(rows ...*row) *frame {
	for _, r := range rows {
		f.lines = append(f.lines, r.String())
	}
	return f
}

func (f *frame) blank() *frame { return f.add(newRow(0)) }

// room is how many lines are left above the last.
func (f *frame) room() int {
	if f.height == 0 {
		return math.MaxInt32
	}
	return max(0, f.height-1-len(f.lines))
}

func (f *frame) tall() bool { return f.height == 0 || f.height >= tall }

func find(pools []Pool, id string) (*Pool, int) {
	for i := range pools {
		if pools[i].ID == id {
			return &pools[i], i
		}
	}
	if len(pools) == 0 {
		return nil, 0
	}
	return &pools[0], 0
}

func (f *frame) header(p *Picture) {
	r := f.row().put(f.strong, " warmpath ")
	for _, s := range p.Services {
		style := f.good
		if s.Ready == 0 {
			style = f.bad
		} else if s.Ready < s.Alive || s.Name == "index" && s.Uncovered > 0 {
			style = f.warn
		}
		count := fmt.Sprint(s.Ready)
		if s.Ready < s.Alive {
			count = fmt.Sprintf("%d/%d", s.Ready, s.Alive)
		}
		r.put(f.faint, " "+s.Name+" ").put(style, count)
		if s.Name == "index" && s.Ready > 0 && s.Uncovered > 0 {
			r.put(f.bad, fmt.Sprintf(" (%d buckets uncovered)", s.Uncovered))
		}
	}
	r.put(f.faint, "  NATS ")
	switch {
	case p.NATS.Up:
		r.put(f.good, "ok").put(f.faint, "  "+p.At.Format(time.TimeOnly))
		f.add(r)
	case p.At.IsZero():
		f.add(r.put(f.bad, "away"))
		f.blank().add(f.row().put(f.bad, fmt.Sprintf(" Waiting for %s for %s: %s", p.NATS.URL, age(p.NATS.Away), p.NATS.Why)))
	default:
		f.add(r.put(f.bad, "away"))
		f.add(f.row().put(f.bad, fmt.Sprintf(" NATS is away: what follows is %s old, of %s.", age(p.NATS.Away), p.At.Format(time.TimeOnly))))
	}
}

func (f *frame) pool(p *Pool, at, of int) {
	r := f.row().put(f.strong, " "+p.Model)
	if of > 1 {
		r.put(f.faint, fmt.Sprintf("  pool %d of %d", at+1, of))
	}
	if p.Reporting < p.Routers {
		r.put(f.warn, fmt.Sprintf("  %d of %d routers report", p.Reporting, p.Routers))
	}
	rates, hit := [...]string{"-", "-", "-", "-", "-"}, "-"
	if p.Rates != nil {
		for i, v := range []float64{p.Rates.Arrivals, p.Rates.Prompt, p.Rates.Uncached, p.Rates.Output, p.Rates.Shed} {
			rates[i] = quantity(v) + "/s"
		}
		hit = percent(p.Rates.Hit)
	}
	queued, held := "-", "-"
	if p.Gauges != nil {
		queued, held = quantity(float64(p.Gauges.Queued)), known(p.Gauges.Held)
	}
	item := func(r *row, name, value string) { r.put(f.faint, "  "+name+" ").put(f.plain, value) }
	item(r, "queued", queued)
	item(r, "held", held)
	item(r, "shed", rates[4])
	f.add(r)
	r = f.row().put(f.plain, " ")
	for i, name := range []string{"arrivals", "prompt", "uncached", "output"} {
		r.put(f.faint, name+" ").put(f.plain, rates[i]+"  ")
	}
	f.add(r.put(f.faint, "hit ").put(f.plain, hit))
}

// body shares the room out: roles take what they need, decisions a quarter of the rest, engines what is left.
func (f *frame) body(p *Picture, pool *Pool, s Show) {
	if f.tall() {
		f.blank()
	}
	f.roles(p, pool)
	engines := sorted(pool.Engines, s.Order)
	want := min(len(pool.Decisions), 2+f.room()/5)
	if f.height == 0 {
		want = min(len(pool.Decisions), 10)
	}
	lines := f.room() - 2 // headings
	if f.tall() {
		lines -= 2
	}
	more := max(0, lines-len(engines)-want) // that the engines do not take
	want = min(len(pool.Decisions), want+more, max(0, lines-1))
	f.engines(pool, engines, lines-want)
	f.decisions(p, pool, want)
}

func (f *frame) roles(p *Picture, pool *Pool) {
	if len(pool.Roles) == 0 || f.room() < 2 {
		return
	}
	if d := pool.Decision; d != nil && d.Blind != "" {
		f.add(f.row().put(f.bad, " blind: "+d.Blind))
	}
	r := f.row().put(f.faint, " ").cell(f.faint, "ROLE", 8)
	for _, head := range []string{"READY", "NOW", "NEED", "TARGET", "START"} {
		r.number(f.faint, head, max(5, len(head)))
	}
	if d := pool.Decision; d != nil {
		r.put(f.faint, " scaling ").put(f.plain, modeName(d.Mode)).put(f.faint, ", decided "+age(d.Age)+" ago")
	} else {
		r.put(f.faint, " no decision was logged lately")
	}
	f.add(r)
	for i := range pool.Roles {
		f.role(p, pool, &pool.Roles[i])
	}
}

func (f *frame) role(p *Picture, pool *Pool, r *Role) {
	d := r.Decision
	line := f.row().put(f.plain, " ").cell(f.strong, string(r.Role), 8).number(f.plain, fmt.Sprint(r.Serving), 5)
	if d == nil {
		f.add(line.put(f.faint, "    -     -      -     -"))
		return
	}
	target := f.good
	if d.Target != d.Now {
		target = f.warn
	}
	starting := f.plain
	if *r.Starting > 0 {
		starting = f.need
	}
	line.number(f.plain, fmt.Sprint(d.Now), 5).number(f.plain, fmt.Sprint(d.Need), 5)
	line.number(target, fmt.Sprint(d.Target), 6).number(starting, fmt.Sprint(*r.Starting), 5)
	line.put(f.plain, " ")
	long, short := demandText(r.Role, d.Demand)
	for _, parts := range [][2]string{{long, learnedText(r.Role, d.Model, true)}, {long, learnedText(r.Role, d.Model, false)}, {long, ""}, {short, ""}} {
		if lipgloss.Width(parts[0]+"  "+parts[1]) <= line.left || parts[0] == short {
			line.put(f.plain, parts[0]+"  ").put(f.faint, parts[1])
			break
		}
	}
	f.add(line)
	f.sparks(p, pool, r.Role)
	line = f.row().put(f.faint, "   rule ").put(f.plain, d.Rule)
	if r.Draining > 0 {
		line.put(f.faint, fmt.Sprintf("  %d draining", r.Draining))
	}
	if d.Short > 0 {
		line.put(f.bad, fmt.Sprintf("  budget short of %d", d.Short))
	}
	if len(d.Blocked) > 0 {
		line.put(f.warn, "  blocked: "+strings.Join(d.Blocked, "; "))
	}
	f.add(line)
	if f.tall() {
		f.why(r.Role, d)
	}
}

// demandText says the demand in busy replicas, in two lengths.
func demandText(role decide.Role, x decide.Demand) (long, short string) {
	if role != decide.Decode {
		short = fmt.Sprintf("w %.2f ", x.Busy)
	}
	if role != decide.Prefill {
		short += fmt.Sprintf("x_obs %.2f x_flow %.2f ", x.Observed, x.Flow)
	}
	return short + fmt.Sprintf("held %.2f", x.Held), strings.TrimSuffix(short, " ")
}

func learnedText(role decide.Role, m decide.Learned, long bool) string {
	var parts []string
	if role != decide.Prefill {
		parts = append(parts, fmt.Sprintf("%.0f seqs", m.Sequences))
	}
	if role != decide.Decode {
		parts = append(parts, quantity(m.Rate)+" tok/s")
	}
	if !long {
		return strings.Join(parts, " ") + fmt.Sprintf(" %.0f %%", 100*m.Confidence)
	}
	parts = append(parts, fmt.Sprintf("start-up %.0f s", m.Startup), fmt.Sprintf("%.0f %% learned", 100*m.Confidence))
	return strings.Join(parts, ", ")
}

// sparks draw replicas and demand of the last minutes in the same measure, side by side.
func (f *frame) sparks(p *Picture, pool *Pool, role decide.Role) {
	const labels = len("   replicas   demand ")
	cells := max(4, (f.width-labels-16)/2)
	span := spanOf(p, pool)
	now, busy := make([]float64, cells), make([]float64, cells)
	top := 0.0
	for i := range cells {
		now[i], busy[i] = math.NaN(), math.NaN()
		if s, ok := pool.at(p.At.Add(-span+span*time.Duration(i+1)/time.Duration(cells)), role); ok {
			now[i], busy[i] = float64(s.Now), s.Demand
			top = max(top, now[i], busy[i])
		}
	}
	rows := 1
	if f.tall() {
		rows = 3
	}
	left, right := spark(now, top, rows), spark(busy, top, rows)
	for i := range rows {
		names := [...]string{"            ", "         ", ""}
		if i == rows-1 {
			names = [...]string{"   replicas ", "  demand ", fmt.Sprintf(" of %.3g, %.0f min", top, span.Minutes())}
		}
		f.add(f.row().put(f.faint, names[0]).put(f.good, left[i]).put(f.faint, names[1]).put(f.need, right[i]).put(f.faint, names[2]))
	}
}

// spanOf is how far back sparks reach: to the oldest decision, in steps that do not change all the time.
func spanOf(p *Picture, pool *Pool) time.Duration {
	if len(pool.History) > 0 {
		for _, span := range []time.Duration{2 * time.Minute, 5 * time.Minute} {
			if p.At.Sub(pool.History[0].At) <= span {
				return span
			}
		}
	}
	return history
}

// at is what was known of a role at a time.
func (p *Pool) at(at time.Time, role decide.Role) (Sampled, bool) {
	n, _ := slices.BinarySearchFunc(p.History, at, func(s Sampling, at time.Time) int {
		if s.At.After(at) {
			return 1
		}
		return -1
	})
	if n == 0 {
		return Sampled{}, false
	}
	s, ok := p.History[n-1].Roles[role]
	return s, ok
}

// why adds what else a decision says of itself.
func (f *frame) why(role decide.Role, d *decide.RoleDecision) {
	if len(d.Candidates) > 0 {
		line := f.row().put(f.faint, "   candidates")
		for _, c := range d.Candidates {
			line.put(f.plain, fmt.Sprintf("  %s %d", c.Rule, c.N))
		}
		if d.Demand.Infeasible > 0 && role != decide.Decode {
			line.put(f.warn, "  no number serves "+rare(d.Demand.Infeasible)+" of prompts in time")
		}
		f.add(line)
	}
	line := f.row().put(f.faint, "  ")
	if len(d.Predicted) > 0 {
		line.put(f.faint, " would miss")
		for _, v := range d.Predicted {
			line.put(f.plain, fmt.Sprintf("  %s with %d", rare(v.Violations), v.N))
		}
		line.put(f.faint, "  ")
	}
	if v := d.Realised; v != nil {
		line.put(f.faint, fmt.Sprintf(" foreseen at %s ", v.At.Format(time.TimeOnly))).put(f.plain, fmt.Sprintf("%.2f", v.Forecast)).
			put(f.faint, ", came ").put(f.plain, fmt.Sprintf("%.2f", v.Came))
	}
	if len(d.Predicted) > 0 || d.Realised != nil {
		f.add(line)
	}
}

func sorted(engines []Engine, o Order) []Engine {
	all := slices.Clone(engines)
	slices.SortStableFunc(all, func(a, b Engine) int {
		switch o {
		case ByLoad:
			return cmp.Or(cmp.Compare(value(b.Load), value(a.Load)), cmp.Compare(count(b.Inflight), count(a.Inflight)))
		case ByState:
			return cmp.Compare(concern(&b), concern(&a))
		}
		return 0
	})
	return all
}

func value(v *float64) float64 {
	if v == nil {
		return -1
	}
	return *v
}

func count(n *int) int {
	if n == nil {
		return -1
	}
	return *n
}

// concern is how much an engine wants to be looked at.
func concern(e *Engine) int {
	if e.Draining && e.State != fleet.Gone {
		return 1
	}
	return slices.Index([]fleet.State{fleet.OK, "", fleet.Blind, fleet.Partial, fleet.Gone, fleet.Silent}, e.State)
}

func (f *frame) help() {
	f.blank()
	for _, line := range []string{
		" q, ctrl-c     quit              tab, →, ←, ↑, ↓   another pool",
		" s             sort engines: by name, load, state  ?   this page",
		"",
		" arrivals   requests, prompt, uncached and output tokens a second, over the last ten",
		" hit        1 - uncached/prompt",
		" queued     requests that wait at the routers; held are those without any engine",
		" READY      replicas that serve",
		" NOW        replicas that are ordered and do not drain",
		" NEED       what the rules come to; TARGET after bounds, budget and blocks",
		" START      ordered and not met yet",
		" w          busy prefill replicas",
		" x_obs      decode replicas by what they hold; x_flow by what arrives",
		" held       the greatest forecast of the last while",
		" LOAD       1 is the sequences that objectives allow, or a second of prompts",
		" ok, partial, blind, silent, gone: docs/operations.md says what to do",
		" -          not known, which is not zero",
	} {
		f.add(f.row().put(f.plain, line))
	}
}
