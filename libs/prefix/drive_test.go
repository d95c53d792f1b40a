package prefix

import (
	"cmp"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"sync/atomic"
	"testing"

	"github.com/warmpath/warmpath/libs/kvevent"
)

// A drive drives engines and an index through random events and compares them with the model after each.
type drive struct {
	t       testing.TB
	pick    func(n int) int
	w       *world
	x       *Index
	engines []*modelEngine
	queries int
	each    int                    // queries after each step; 0 means 4
	broken  func(runs []Run) []Run // a fault between engine and index, to see that it is found
	spoil   func(e *Engine)        // a fault in an engine after each event, likewise
	bent    func(r *Run)           // a fault between an engine and the one that is restored from its runs, likewise
	failed  error
}

type driveOptions struct {
	canonical int
	sizes     []int // of the engines, in turn
	engines   int
	nodes     int
	depth     int // pieces
	tiers     int
	groups    int
	sliding   bool
}

func newDrive(t testing.TB, pick func(n int) int, o driveOptions) *drive {
	d := &drive{t: t, pick: pick, x: NewIndex(), w: newWorld(pick, o.canonical, o.nodes, o.depth)}
	for i := range o.engines {
		m := &modelEngine{w: d.w, id: fmt.Sprintf("e%03d", i), size: o.sizes[i%len(o.sizes)], salt: uint64(i) << 32,
			tiers: 1 + i%o.tiers, groups: o.groups, sliding: o.sliding}
		m.reset()
		m.a, m.b = d.newEngine(), d.newEngine()
		d.engines = append(d.engines, m)
		d.x.Reset(m.id, 0)
	}
	return d
}

func (d *drive) newEngine() *Engine {
	return NewEngine(EngineOptions{Seed: testSeed, Pool: "pool", BlockSize: d.w.size})
}

func (d *drive) fail(format string, args ...any) {
	if d.failed == nil {
		d.failed = fmt.Errorf(format, args...)
	}
}

// step does one random thing to one engine.
func (d *drive) step() {
	m := d.engines[d.pick(len(d.engines))]
	switch op := d.pick(1000); {
	case op < 430:
		d.store(m)
	case op < 480:
		d.grow(m)
	case op < 900:
		d.remove(m)
	case op < 940 && m.tiers > 1:
		d.placeholder(m)
	case op < 945:
		d.fold(m, kvevent.Event{Kind: kvevent.Cleared}, m.clear)
	case op < 950:
		m.reset()
		m.a.Reset()
		m.b.Reset()
		m.life++
		m.gone = false
		d.x.Reset(m.id, m.life)
	case op < 954:
		d.x.Drop(m.id)
		m.gone = true
	case op < 966:
		d.replace(m)
	case op < 976:
		d.takeOver(m)
	case op < 990:
		d.x.Sweep(1 + d.pick(5000))
	default:
		d.unknown(m)
	}
	if m.gone && d.pick(3) == 0 {
		d.replace(m)
	}
}

func (d *drive) store(m *modelEngine) {
	ends := m.ends(d.pick(len(d.w.nodes)))
	if len(ends) == 0 {
		return
	}
	from, to := 0, len(ends)
	switch d.pick(8) {
	case 0: // out of order or under a lost parent
		from = d.pick(to)
	case 1, 2: // a prompt is stored from its first block that is not held
		for from < to-1 && m.held(m.hash(ends[from]), false) {
			from++
		}
	}
	if d.pick(4) == 0 {
		to = from + 1 + d.pick(to-from)
	}
	tier, group := Tier(0), d.pick(m.groups)
	if d.pick(3) == 0 {
		tier = Tier(d.pick(m.tiers))
	}
	if m.groups > 1 && d.pick(2) == 0 { // as an engine does: all groups
		for g := range m.groups {
			d.fold(m, m.storeEvent(ends, from, to, tier, g), func() { m.store(ends, from, to, tier, g) })
		}
		return
	}
	if m.sliding && d.pick(4) == 0 {
		ev := m.storeEvent(ends, from, to, tier, m.groups)
		ev.SpecKind, ev.SlidingWindow = "sliding_window", 32
		d.fold(m, ev, func() {
			for _, h := range ev.Hashes {
				m.copies[copyKey{tier, m.groups, h}]++
			}
		})
		return
	}
	d.fold(m, m.storeEvent(ends, from, to, tier, group), func() { m.store(ends, from, to, tier, group) })
}

// remove evicts a few copies that are held, anywhere in the tree.
func (d *drive) remove(m *modelEngine) {
	held := slices.Collect(maps.Keys(m.copies))
	if len(held) == 0 {
		return
	}
	slices.SortFunc(held, func(a, b copyKey) int {
		return 4*cmpInt(a.hash, b.hash) + 2*cmpInt(uint64(a.tier), uint64(b.tier)) + cmpInt(uint64(a.group), uint64(b.group))
	})
	k := held[d.pick(len(held))]
	ev := kvevent.Event{Kind: kvevent.Removed, Hashes: []uint64{k.hash}, Medium: []string{"GPU", "CPU", "storage"}[k.tier],
		Group: k.group, HasGroup: k.group != 0 || d.pick(2) == 0}
	if k.tier != GPU && d.pick(6) == 0 {
		ev.Medium = "remote" // one that is not known: gone from all other tiers
		d.fold(m, ev, func() {
			delete(m.copies, copyKey{CPU, k.group, k.hash})
			delete(m.copies, copyKey{Storage, k.group, k.hash})
			m.prune()
		})
		return
	}
	d.fold(m, ev, func() { m.remove(k) })
}

func cmpInt(a, b uint64) int {
	switch {
	case a < b:
		return -1
	case a > b:
		return 1
	}
	return 0
}

func (d *drive) placeholder(m *modelEngine) {
	ends := m.ends(d.pick(len(d.w.nodes)))
	if len(ends) == 0 {
		return
	}
	h, tier, group := m.hash(ends[d.pick(len(ends))]), Tier(1+d.pick(m.tiers-1)), d.pick(m.groups)
	if !m.seen[group] && (group != 0 || len(m.seen) != 0) {
		return // without a kind a group must be known by then
	}
	ev := kvevent.Event{Kind: kvevent.Stored, Hashes: []uint64{h}, Medium: []string{"", "CPU", "Storage"}[tier],
		Group: group, HasGroup: true}
	d.fold(m, ev, func() { m.placeholder(h, tier, group) })
}

// unknown sends events that must change nothing.
func (d *drive) unknown(m *modelEngine) {
	h := uint64(d.pick(1 << 30))
	ends := m.ends(d.pick(len(d.w.nodes)))
	ev := kvevent.Event{Kind: kvevent.Removed, Hashes: []uint64{h | 1<<40}}
	if len(ends) > 0 && d.pick(2) == 0 {
		ev = m.storeEvent(ends, 0, len(ends), GPU, 0)
		ev.Medium = "tape"
	}
	d.fold(m, ev, func() {})
}

// replace puts an engine's snapshot into the index.
func (d *drive) replace(m *modelEngine) {
	m.life++
	m.gone = false
	clear(m.gpu)
	clear(m.any)
	d.x.Replace(m.id, m.life, func(yield func(*Run) bool) {
		m.a.Snapshot(func(r Run) bool {
			if err := m.follow(&r); err != nil {
				d.fail("%s: snapshot: %w", m.id, err)
			}
			if d.broken == nil {
				return yield(&r)
			}
			for _, kept := range d.broken([]Run{r}) {
				yield(&kept)
			}
			return true
		})
	})
}

// takeOver goes on with the engine that was only fed with runs, or with one made from a snapshot.
func (d *drive) takeOver(m *modelEngine) {
	if m.a.Stats().Waiting > 0 {
		return // tokens of waiting blocks are not logged
	}
	b := d.newEngine()
	m.a.Snapshot(func(r Run) bool {
		d.restore(b, r)
		return true
	})
	if d.pick(2) == 0 {
		m.a, m.b = m.b, b
	} else {
		m.a, m.b = b, m.a
	}
	d.sameEngine(m)
}

func (d *drive) fold(m *modelEngine, ev kvevent.Event, model func()) {
	if m.gone {
		return
	}
	model()
	d.foldAll(m, []kvevent.Event{ev})
}

// foldAll folds a batch of which the model knows already.
func (d *drive) foldAll(m *modelEngine, events []kvevent.Event) {
	runs := m.a.FoldAll(events, nil)
	if d.spoil != nil {
		d.spoil(m.a)
	}
	for i := range runs {
		d.restore(m.b, runs[i])
	}
	d.sameRuns(m, runs)
	d.sameEngine(m)
}

func (d *drive) restore(e *Engine, r Run) {
	if d.bent != nil {
		d.bent(&r)
	}
	e.Restore(&r)
}

// sameRuns follows the runs in the model's sets and in the index, at times cut in two as a log that cuts messages
// would, and compares answers in between.
func (d *drive) sameRuns(m *modelEngine, runs []Run) {
	applied := runs
	if d.broken != nil {
		applied = d.broken(runs)
	}
	for i := range runs {
		for _, part := range d.cut(&runs[i]) {
			if err := m.follow(&part); err != nil {
				d.fail("%s: %w", m.id, err)
			}
			if d.broken == nil {
				d.x.Apply(m.id, &part)
				if d.pick(8) == 0 {
					d.settle(1, nil)
				}
			}
		}
	}
	if d.broken != nil {
		for i := range applied {
			d.x.Apply(m.id, &applied[i])
		}
	}
}

func (d *drive) cut(r *Run) []Run {
	n := len(r.Keys)
	if n < 2 || r.Split || r.Clear || d.pick(4) != 0 {
		return []Run{*r}
	}
	at := 1 + d.pick(n-1)
	head, tail := *r, *r
	head.Keys, tail.Keys = r.Keys[:at], r.Keys[at:]
	return []Run{head, tail}
}

// sameEngine compares both engines with the model.
func (d *drive) sameEngine(m *modelEngine) {
	for name, e := range map[string]*Engine{"folded": m.a, "restored": m.b} {
		if got := copiesOf(e); !maps.Equal(got, m.copies) {
			d.fail("%s %s: copies %v, want %v", m.id, name, got, m.copies)
		}
		s := e.Stats()
		if s.VisibleGPU != len(m.gpu) || s.VisibleAny != len(m.any) {
			d.fail("%s %s: %d and %d shown, want %d and %d", m.id, name, s.VisibleGPU, s.VisibleAny, len(m.gpu), len(m.any))
		}
		if s.Malformed != 0 || s.Evicted != m.lost {
			d.fail("%s %s: %d malformed; evicted %t, want %t", m.id, name, s.Malformed, s.Evicted, m.lost)
		}
	}
	if a, b := m.a.Stats(), m.b.Stats(); a.Digest != b.Digest || a.Blocks != b.Blocks || a.Copies != b.Copies || m.a.live != m.b.live {
		d.fail("%s: folded %+v, restored %+v", m.id, a, b)
	}
}

func prefixOf(keys []uint64, set map[uint64]bool) int {
	for i, k := range keys {
		if !set[k] {
			return i
		}
	}
	return len(keys)
}

// settle compares n answers exactly: with the sets that the runs tell of, and, for the engines in fresh, with what
// the model holds.
func (d *drive) settle(n int, fresh *modelEngine) {
	if fresh != nil {
		for set, shown := range map[*map[uint64]bool]map[int]bool{&fresh.gpu: fresh.shown(false), &fresh.any: fresh.shown(true)} {
			want := map[uint64]bool{}
			for at := range shown {
				want[d.w.nodes[at].key] = true
			}
			if !fresh.gone && !maps.Equal(*set, want) {
				d.fail("%s: %d keys shown, want %d", fresh.id, len(*set), len(want))
			}
		}
	}
	var dst, want []Depth
	for range n {
		keys := d.w.nodes[d.pick(len(d.w.nodes))].keys
		if d.pick(4) == 0 && len(keys) > 0 { // cut at odd places, and going on with what nobody holds
			keys = slices.Clip(keys[:d.pick(len(keys)+1)])
			if d.pick(2) == 0 {
				keys = append(keys, 1, 2, 3)
			}
		}
		want = want[:0]
		for _, m := range d.engines {
			if !m.gone {
				want = append(want, Depth{m.id, prefixOf(keys, m.gpu), prefixOf(keys, m.any)})
			}
		}
		dst = d.x.Match(keys, dst[:0])
		d.queries++
		if !slices.Equal(dst, want) {
			d.fail("match %v, want %v", dst, want)
		}
	}
}

// rows checks the index against the sets row by row.
func (d *drive) rows() {
	x := d.x
	for _, m := range d.engines {
		info, ok := x.Engine(m.id)
		if ok == m.gone {
			d.fail("%s: known %t", m.id, ok)
		}
		if m.gone {
			continue
		}
		s := m.a.Stats()
		if info.VisibleGPU != len(m.gpu) || info.VisibleAny != len(m.any) || info.Digest != s.Digest ||
			info.Evicted != m.lost ||
			info.Surplus != 0 || info.Missing != 0 || info.Generation != m.life {
			d.fail("%s: index has %+v, engine %+v", m.id, info, s)
		}
	}
	holds, err := x.holdings() // any set by engine
	if err != nil {
		d.fail("%w", err)
	}
	for _, m := range d.engines {
		if !m.gone && !maps.Equal(holds[m.id], m.any) && len(m.any)+len(holds[m.id]) > 0 {
			d.fail("%s: rows hold %d keys, want %d", m.id, len(holds[m.id]), len(m.any))
		}
		for key := range holds[m.id] {
			if !holds[m.id][d.w.keyParent[key]] {
				d.fail("%s: key %x is held without its parent", m.id, key)
			}
		}
	}
}

func picker(seed uint64) func(n int) int {
	r := rand.New(rand.NewPCG(seed, 7))
	return r.IntN
}

func driven() map[string]driveOptions {
	return map[string]driveOptions{
		"same size":    {canonical: 16, sizes: []int{16}, engines: 5, nodes: 120, depth: 24, tiers: 1, groups: 1},
		"tiers":        {canonical: 16, sizes: []int{16}, engines: 5, nodes: 90, depth: 16, tiers: 3, groups: 1},
		"groups":       {canonical: 16, sizes: []int{16}, engines: 4, nodes: 80, depth: 12, tiers: 2, groups: 3, sliding: true},
		"64 in 16":     {canonical: 16, sizes: []int{64}, engines: 4, nodes: 200, depth: 40, tiers: 2, groups: 1},
		"16 in 64":     {canonical: 64, sizes: []int{16}, engines: 4, nodes: 200, depth: 40, tiers: 2, groups: 1},
		"many sizes":   {canonical: 32, sizes: []int{16, 32, 64, 128}, engines: 6, nodes: 200, depth: 40, tiers: 3, groups: 1},
		"small pieces": {canonical: 4, sizes: []int{4, 8, 16}, engines: 4, nodes: 90, depth: 20, tiers: 2, groups: 1},
		"many engines": {canonical: 16, sizes: []int{16}, engines: 90, nodes: 60, depth: 12, tiers: 2, groups: 1},
	}
}

// run takes so many steps, or stops at the first difference.
func (d *drive) run(steps int) error {
	for i := 0; i < steps && d.failed == nil; i++ {
		d.step()
		var fresh *modelEngine
		if i%8 == 0 {
			fresh = d.engines[d.pick(len(d.engines))]
		}
		d.settle(cmp.Or(d.each, 4), fresh)
		if i%100 == 0 {
			d.rows()
		}
	}
	d.rows()
	return d.failed
}

// Engine and Index together answer as plain maps of sets do, after and between all operations: a million times, under
// the race detector a hundred thousand.
func TestModel(t *testing.T) {
	want, each := int64(1_000_000), 36
	if raced {
		want, each = 100_000, 4
	}
	var total atomic.Int64
	t.Run("drives", func(t *testing.T) {
		for name, o := range driven() {
			for seed := range uint64(4) {
				t.Run(fmt.Sprintf("%s/%d", name, seed), func(t *testing.T) {
					t.Parallel()
					d := newDrive(t, picker(seed+1), o)
					d.each = each
					if err := d.run(900); err != nil {
						t.Fatal(err)
					}
					for !d.x.Sweep(1 << 20) {
					}
					d.rows()
					if d.failed != nil {
						t.Fatalf("swept: %v", d.failed)
					}
					if wide := d.x.sets != nil; wide != (name == "many engines") {
						t.Errorf("shared sets: %t", wide)
					}
					total.Add(int64(d.queries))
				})
			}
		}
	})
	if n := total.Load(); n < want && !t.Failed() {
		t.Errorf("%d queries compared, want %d", n, want)
	}
	t.Logf("%d queries, 0 mismatches", total.Load())
}
