package bench

import (
	"context"
	"runtime"
	"slices"
	"time"

	"github.com/warmpath/warmpath/libs/prefix"
)

// Options say how much work to give.
type Options struct {
	Rows  int           // different blocks resident
	Round time.Duration // how long each time is taken for; 0 means 500 ms
	Steps int           // of each history; 0 means 4000
	// CPU says to count this process's CPU time instead of wall time, collection of garbage on other cores with it: for
	// a machine that has other work. What two goroutines do at once stays wall time.
	CPU bool
	// Progress, if set, is told before each measurement what comes and how much of all is done.
	Progress func(done, all int, what string)
}

const (
	holders     = 16
	writtenPerS = 200_000
)

// sameDepth and distinctDepth say down to which block an engine holds every chain.
func sameDepth(int) int       { return chainLength }
func distinctDepth(e int) int { return chainLength - 29*e }

// meter measures one rival after another.
type meter struct {
	o    Options
	w    *work
	done int
	all  int
}

// Measure gives the same work to each rival in turn, with nothing of the others in memory. It returns what was
// measured when the context ends.
func Measure(ctx context.Context, rivals []Rival, o Options) ([]Figures, error) {
	if o.Round == 0 {
		o.Round = 500 * time.Millisecond
	}
	if o.Steps == 0 {
		o.Steps = 4000
	}
	m := meter{o: o, w: newWork(o.Rows)}
	phases := []struct {
		name string
		run  func(r Rival, f *Figures)
	}{{"answers", m.answers}, {"apply", m.apply}, {"1 holder", m.oneHolder}, {"16 holders", m.sixteen}, {"16 depths", m.distinct}}
	m.all = len(rivals) * len(phases)
	var out []Figures
	for _, r := range rivals {
		f := Figures{Rival: r.Name, Shape: r.Shape}
		for _, p := range phases {
			if err := ctx.Err(); err != nil {
				return out, err
			}
			if o.Progress != nil {
				o.Progress(m.done, m.all, r.Name+": "+p.name)
			}
			p.run(r, &f)
			m.done++
		}
		out = append(out, f)
	}
	return out, nil
}

// answers lets a rival live through three histories. Runs has no fold, so that Folded answers for it.
func (m *meter) answers(r Rival, f *Figures) {
	judge := func(h History) Verdict {
		x := r.New()
		if _, bare := x.(Runs); bare {
			x = NewFolded()
		}
		h.Steps = m.o.Steps
		return h.Judge(x)
	}
	f.InOrder8 = judge(History{Seed: 1, Engines: 8})
	f.InOrder16 = judge(History{Seed: 2, Engines: 16})
	f.Holes8 = judge(History{Seed: 3, Engines: 8, Interior: true})
}

func (m *meter) apply(r Rival, f *Figures) {
	stores, removes := make([]*Step, 0, len(m.w.short)), make([]*Step, 0, len(m.w.short))
	for i := range m.w.short {
		c := &m.w.short[i]
		stores, removes = append(stores, c.store("e", 0, runLength)), append(removes, c.remove("e", 0, runLength))
	}
	blocks := float64(len(stores) * runLength)
	x := r.New()
	runtime.GC()
	timed := func(f func(i int)) float64 {
		since := m.watch()
		for i := range stores {
			f(i)
		}
		return float64(since().Nanoseconds()) / blocks
	}
	f.ApplyNS.Store = timed(func(i int) { x.Apply(stores[i]) })
	f.ApplyNS.Mixed = timed(func(i int) {
		at := i * 7919 % len(stores)
		x.Apply(removes[at])
		x.Apply(stores[at])
	}) / 2
	f.ApplyNS.Remove = timed(func(i int) { x.Apply(removes[i]) })
}

func (m *meter) oneHolder(r Rival, f *Figures) {
	before := heap()
	x := r.New()
	m.w.fill(x, 1, sameDepth)
	f.One = m.size(before, 1)
	dst := make([]prefix.Depth, 0, 64)
	f.MatchUS.OneHot = m.perCall(func(int) { dst = x.Match(m.w.chains[0].keys, dst[:0]) })
}

func (m *meter) sixteen(r Rival, f *Figures) {
	before := heap()
	x := r.New()
	since := m.watch()
	m.w.fill(x, holders, sameDepth)
	f.ApplyNS.Shared = float64(since().Nanoseconds()) / float64(m.w.rows*holders)
	f.Sixteen = m.size(before, holders)
	dst := make([]prefix.Depth, 0, 64)
	match := func(keys []uint64) { dst = x.Match(keys, dst[:0]) }
	f.MatchUS.Same = m.perCall(func(i int) { match(m.w.keys(i)) })
	f.MatchUS.Hot = m.perCall(func(int) { match(m.w.chains[0].keys) })
	f.MatchUS.Miss = m.perCall(func(i int) { match(m.w.misses[i%len(m.w.misses)].keys) })
	f.Allocs = allocations(func() { match(m.w.chains[0].keys) })
	if l, ok := x.(*TwoLevelLRU); ok {
		lookup := func(int) { l.Lookup(m.w.chains[0].keys) }
		was := l.trace
		l.trace = false
		f.LookupUS = m.perCall(lookup)
		l.trace = true
		f.TracedUS = m.perCall(lookup)
		l.trace = was
	}
	for n := range f.PerS {
		f.PerS[n] = m.throughput(x, n+1)
	}
	f.Beside = m.besideWriter(x)
	since = m.watch()
	x.Drop(engineName(3))
	f.DropMS = milliseconds(since())
	if s, later := x.(interface{ Sweep(rows int) bool }); later {
		since = m.watch()
		for !s.Sweep(1 << 16) {
		}
		f.SweepMS = milliseconds(since())
	}
}

func (m *meter) distinct(r Rival, f *Figures) {
	x := r.New()
	m.w.fill(x, holders, distinctDepth)
	runtime.GC()
	dst := make([]prefix.Depth, 0, 64)
	f.MatchUS.Distinct = m.perCall(func(i int) { dst = x.Match(m.w.keys(i), dst[:0]) })
}

func (m *meter) size(before, engines int) Size {
	s := Size{Bytes: float64(heap()-before) / float64(m.w.rows*engines)}
	for range 3 { // the quietest
		cpu, start := cpuTime(), time.Now()
		runtime.GC()
		if wall := milliseconds(time.Since(start)); s.GCMS == 0 || wall < s.GCMS {
			s.GCMS, s.GCCPU = wall, milliseconds(cpuTime()-cpu)
		}
	}
	return s
}

// watch starts a stopwatch.
func (m *meter) watch() (since func() time.Duration) {
	if !m.o.CPU {
		start := time.Now()
		return func() time.Duration { return time.Since(start) }
	}
	start := cpuTime()
	return func() time.Duration { return cpuTime() - start }
}

// perCall is the median of five rounds, in microseconds.
func (m *meter) perCall(f func(i int)) float64 {
	var rounds []float64
	n := 0
	for range 5 {
		start, since, calls := time.Now(), m.watch(), 0
		for time.Since(start) < m.o.Round/5 {
			for range 8 {
				f(n)
				n++
			}
			calls += 8
		}
		rounds = append(rounds, float64(since().Nanoseconds())/1e3/float64(calls))
	}
	slices.Sort(rounds)
	return rounds[len(rounds)/2]
}
