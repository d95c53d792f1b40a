package prefix

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/vmihailenco/msgpack/v5"

	"github.com/warmpath/warmpath/libs/blockkey"
	"github.com/warmpath/warmpath/libs/kvevent"
)

// A traffic is what a full engine announces, as vLLM does: in each scheduler step one prompt of 16 to 32 blocks, in one
// event, and one block more of each of the prompts before it until they have their answers; before the blocks that are
// stored, one removal for each, of what was used longest ago, tails first. The same steps come again and again.
type traffic struct {
	fill, cycle [][]kvevent.Event // steps; fill brings an empty engine to where the cycle begins
	blocks      int               // stored in a cycle; as many are removed
}

const answers = 4 // blocks of an answer

func newTraffic(capacity int) *traffic {
	r := rand.New(rand.NewPCG(1, 3))
	w := &traffic{}
	var chains []kvevent.Event // prompt and answer as one event
	for w.blocks < 2*capacity {
		chains = append(chains, randomChain(r, 16+r.IntN(17)+answers))
		w.blocks += len(chains[len(chains)-1].Hashes)
	}
	held, used := 0, []uint64(nil) // least recently used first, of finished prompts
	for step := range 2 * len(chains) {
		var events, stores []kvevent.Event
		for k := min(step, answers); k >= 0; k-- { // the prompt k steps ago
			c := &chains[(step-k)%len(chains)]
			to := len(c.Hashes) - answers + k
			from := to - 1
			if k == 0 {
				from = 0
			}
			stores = append(stores, cut(c, from, to))
			for held += to - from; held > capacity; held-- {
				events = append(events, kvevent.Event{Kind: kvevent.Removed, Hashes: used[:1:1], Medium: "GPU", HasGroup: true})
				used = used[1:]
			}
			for i := len(c.Hashes) - 1; k == answers && i >= 0; i-- {
				used = append(used, c.Hashes[i])
			}
		}
		if events = append(events, stores...); step < len(chains) {
			w.fill = append(w.fill, events)
		} else {
			w.cycle = append(w.cycle, events)
		}
	}
	return w
}

func randomChain(r *rand.Rand, blocks int) kvevent.Event {
	ev := kvevent.Event{Kind: kvevent.Stored, BlockSize: 16, Medium: "GPU", HasGroup: true, SpecKind: "full_attention",
		HasExtra: true, Extra: make([][]kvevent.ExtraKey, blocks)}
	for range blocks {
		ev.Hashes = append(ev.Hashes, r.Uint64())
	}
	for range 16 * blocks {
		ev.Tokens = append(ev.Tokens, r.Uint32N(151_936))
	}
	return ev
}

// cut is the event that announces blocks from..to of a chain.
func cut(c *kvevent.Event, from, to int) kvevent.Event {
	ev := *c
	ev.Hashes, ev.Extra, ev.Tokens = c.Hashes[from:to], c.Extra[from:to], c.Tokens[16*from:16*to]
	if from > 0 {
		ev.Parent, ev.HasParent = c.Hashes[from-1], true
	}
	return ev
}

// A packer writes batches as vLLM v0.24 and later does with VLLM_KV_EVENTS_USE_INT_BLOCK_HASHES=0: events are maps,
// hashes digests of 32 bytes.
type packer struct {
	b *testing.B
	*msgpack.Encoder
	buf bytes.Buffer
}

func (p *packer) pack(values ...any) {
	for _, v := range values {
		if err := p.Encode(v); err != nil {
			p.b.Fatal(err)
		}
	}
}

func (p *packer) array(n int) {
	if err := p.EncodeArrayLen(n); err != nil {
		p.b.Fatal(err)
	}
}

func (p *packer) object(n int) {
	if err := p.EncodeMapLen(n); err != nil {
		p.b.Fatal(err)
	}
}

func digest(hash uint64) []byte {
	d := make([]byte, 32)
	for i := range 4 {
		binary.BigEndian.PutUint64(d[8*i:], finish(hash+uint64(i)))
	}
	binary.BigEndian.PutUint64(d[24:], hash)
	return d
}

func (p *packer) hashes(hashes []uint64) {
	p.pack("block_hashes")
	p.array(len(hashes))
	for _, h := range hashes {
		p.pack(digest(h))
	}
}

func payloads(b *testing.B, steps [][]kvevent.Event) (out [][]byte) {
	p := &packer{b: b}
	p.Encoder = msgpack.NewEncoder(&p.buf)
	p.UseCompactInts(true)
	for _, events := range steps {
		p.buf.Reset()
		p.array(3)
		p.pack(1735689600.25)
		p.array(len(events))
		for i := range events {
			p.event(&events[i])
		}
		p.pack(0)
		out = append(out, bytes.Clone(p.buf.Bytes()))
	}
	return out
}

func (p *packer) event(ev *kvevent.Event) {
	if ev.Kind == kvevent.Removed {
		p.object(4)
		p.pack("type", "BlockRemoved")
		p.hashes(ev.Hashes)
		p.pack("medium", ev.Medium, "group_idx", ev.Group)
		return
	}
	p.object(11)
	p.pack("type", "BlockStored")
	p.hashes(ev.Hashes)
	p.pack("parent_block_hash")
	if ev.HasParent {
		p.pack(digest(ev.Parent))
	} else {
		p.pack(nil)
	}
	p.pack("token_ids")
	p.array(len(ev.Tokens))
	for _, t := range ev.Tokens {
		p.pack(t)
	}
	p.pack("block_size", ev.BlockSize, "lora_id", nil, "medium", ev.Medium, "lora_name", nil, "extra_keys")
	p.array(len(ev.Extra))
	for range ev.Extra {
		p.pack(nil)
	}
	p.pack("group_idx", ev.Group, "kv_cache_spec_kind", ev.SpecKind)
}

const benchCapacity = 1 << 18

// BenchmarkIngest is what one block costs from the wire to the index: decode, hash, fold, apply, of batches of an engine
// that is full. A block is one that an event names: half of them are stored, half removed.
func BenchmarkIngest(b *testing.B) {
	w := newTraffic(benchCapacity)
	fill, cycle := payloads(b, w.fill), payloads(b, w.cycle)
	e, x := NewEngine(EngineOptions{Pool: "p", BlockSize: 16, Blocks: benchCapacity}), NewIndex()
	var d kvevent.Decoder
	var batch kvevent.Batch
	var runs []Run
	play := func(payload []byte) {
		if err := d.Decode(payload, &batch); err != nil || batch.Bad != 0 {
			b.Fatal(err, batch.Errs)
		}
		runs = e.FoldAll(batch.Events, runs[:0])
		for i := range runs {
			x.Apply("e", &runs[i])
		}
	}
	for _, payload := range append(fill, cycle...) {
		play(payload)
	}
	b.ReportAllocs()
	b.ResetTimer()
	var spent time.Duration
	steps, named := 0, 0
	for i := 0; b.Loop(); i++ {
		at := i % len(cycle)
		start := time.Now()
		play(cycle[at])
		spent += time.Since(start)
		steps++
		for j := range w.cycle[at] {
			named += len(w.cycle[at][j].Hashes)
		}
	}
	s := e.Stats()
	if info, _ := x.Engine("e"); s.Blocks != benchCapacity || info.Digest != s.Digest || s.UnknownRemovals != 0 {
		b.Fatalf("engine %+v, index %+v", s, info)
	}
	b.ReportMetric(float64(spent.Nanoseconds())/float64(named), "ns/block")
	b.ReportMetric(float64(x.Rows()), "rows")
}

// BenchmarkFold folds the same events in the Engine alone; store and remove time one kind of event only.
func BenchmarkFold(b *testing.B) {
	w := newTraffic(benchCapacity)
	for _, kind := range []kvevent.Kind{kvevent.Stored, kvevent.Removed, 0} {
		b.Run(map[kvevent.Kind]string{kvevent.Stored: "store", kvevent.Removed: "remove", 0: "mixed"}[kind], func(b *testing.B) {
			e := NewEngine(EngineOptions{Pool: "p", BlockSize: 16, Blocks: benchCapacity})
			var runs []Run
			fold := func(events []kvevent.Event) {
				runs = e.FoldAll(events, runs)
			}
			for _, events := range append(w.fill, w.cycle...) {
				runs = runs[:0]
				fold(events)
			}
			b.ReportAllocs()
			b.ResetTimer()
			var spent time.Duration
			named := 0
			for i := 0; b.Loop(); i++ {
				events := w.cycle[i%len(w.cycle)]
				stores := 0 // where they begin
				for stores < len(events) && events[stores].Kind == kvevent.Removed {
					stores++
				}
				runs = runs[:0]
				start := time.Now()
				fold(events[:stores])
				mid := time.Now()
				fold(events[stores:])
				end := time.Now()
				if kind != kvevent.Stored {
					spent += mid.Sub(start)
					named += stores
				}
				if kind != kvevent.Removed {
					spent += end.Sub(mid)
					for j := stores; j < len(events); j++ {
						named += len(events[j].Hashes)
					}
				}
			}
			b.ReportMetric(float64(spent.Nanoseconds())/float64(named), "ns/block")
			b.ReportMetric(float64(e.Stats().Blocks), "rows")
		})
	}
}

// BenchmarkMatchTokens answers prompts given as token ids: their keys, then how much of them 16 engines hold. 1,024
// different prompts take turns; each is resident to another depth on each engine.
func BenchmarkMatchTokens(b *testing.B) {
	const engines, prompts = 16, 1024
	b.Run("tokens=8192", func(b *testing.B) {
		r := rand.New(rand.NewPCG(5, 6))
		scope := blockkey.Scope{Pool: "p", BlockSize: 16}
		x := NewIndex()
		all := make([][]uint32, prompts)
		for i := range all {
			for range 8192 {
				all[i] = append(all[i], r.Uint32N(151_936))
			}
			keys := blockkey.Keys(nil, scope, all[i], nil)
			for e := range engines {
				x.Apply(fmt.Sprintf("e%03d", e), show(keys[:r.IntN(len(keys)+1)]))
			}
		}
		var keys []uint64
		var dst []Depth
		b.ReportAllocs()
		b.ResetTimer()
		for i := 0; b.Loop(); i++ {
			keys = blockkey.Keys(keys[:0], scope, all[i%prompts], nil)
			dst = x.Match(keys, dst[:0])
		}
		b.ReportMetric(prompts, "prompts")
		b.ReportMetric(float64(x.Rows()), "rows")
	})
}
