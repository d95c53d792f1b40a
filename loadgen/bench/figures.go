package bench

// Figures is what one rival was measured at. Times are of one call, memory and writing of one block of one engine.
type Figures struct {
	Rival string `json:"rival"`
	Shape string `json:"shape"`

	MatchUS  MatchTimes `json:"match_us"`
	LookupUS float64    `json:"lookup_us,omitempty"` // without the count of consecutive keys, where that is a step of its own
	// TracedUS is LookupUS with the text of its log line made, for 16 engines a key.
	TracedUS float64 `json:"traced_lookup_us,omitempty"`
	Allocs   float64 `json:"match_allocs"`
	PerS     [2]int  `json:"matches_per_s"` // by one and by two goroutines on as many cores
	Beside   Beside  `json:"beside_writer"`

	ApplyNS ApplyTimes `json:"apply_ns"`
	One     Size       `json:"one_holder"`
	Sixteen Size       `json:"sixteen_holders"`
	DropMS  float64    `json:"drop_ms"`            // until one of 16 engines is out of every answer
	SweepMS float64    `json:"sweep_ms,omitempty"` // until its memory is free, where that comes later

	InOrder8  Verdict `json:"in_order_8_engines"`
	InOrder16 Verdict `json:"in_order_16_engines"`
	Holes8    Verdict `json:"with_holes_8_engines"`
}

// MatchTimes are for chains of 500 blocks, and 16 holders unless said otherwise. Hot asks for the same chain again and
// again, the others for a different one each time.
type MatchTimes struct {
	OneHot   float64 `json:"one_holder_hot"`
	Same     float64 `json:"same_depth"`
	Hot      float64 `json:"same_depth_hot"`
	Distinct float64 `json:"distinct_depths"`
	Miss     float64 `json:"miss"`
}

// Beside is how long Match takes beside a writer that stores and removes at a set rate.
type Beside struct {
	P50US         float64 `json:"p50_us"`
	P99US         float64 `json:"p99_us"`
	WrittenPerS   int     `json:"written_blocks_per_s"`
	RequestedPerS int     `json:"requested_blocks_per_s"`
}

// ApplyTimes are for one engine and runs of 32 blocks. Mixed removes and stores again with all rows resident. Shared is
// for long runs of which 16 engines store the same, the first time.
type ApplyTimes struct {
	Store  float64 `json:"store"`
	Remove float64 `json:"remove"`
	Mixed  float64 `json:"mixed"`
	Shared float64 `json:"shared_by_16"`
}

// Size is memory, and what a full garbage collection costs with only the index in it.
type Size struct {
	Bytes float64 `json:"bytes"` // a block of one engine
	GCMS  float64 `json:"gc_ms"`
	GCCPU float64 `json:"gc_cpu_ms"`
}

// Reach compares a stand-in with a figure of its original.
type Reach struct {
	Rival     string  `json:"rival"`
	Figure    string  `json:"figure"`
	Elsewhere float64 `json:"measured_elsewhere"`
	Here      float64 `json:"here"`
	Source    string  `json:"source"`
}

// Reaches puts what the originals were measured at elsewhere beside what the stand-ins reached here with so many rows.
func Reaches(figures []Figures, rows int) (out []Reach) {
	millions := float64(rows) / 1e6
	const driver = "own driver around llm-d-kv-cache 7be76e1; 2 Xeon cores, Go 1.26.8, other work beside it"
	const walk = "own reconstruction, same machine"
	const smg = "README of SMG's radix_tree: Rust, other prompts, other machine"
	lru := func(name string, elsewhere float64, of func(f *Figures) float64) reachOf {
		return reachOf{Reach{"two-level LRU, uncapped", name, elsewhere, 0, driver}, of}
	}
	ordered := func(name string, elsewhere float64, of func(f *Figures) float64) reachOf {
		return reachOf{Reach{"ordered walk, uncapped", name, elsewhere, 0, walk}, of}
	}
	radix := func(name string, elsewhere float64, of func(f *Figures) float64) reachOf {
		return reachOf{Reach{"compressed radix tree", name, elsewhere, 0, smg}, of}
	}
	for _, r := range []reachOf{
		lru("lookup with trace text, 16 pods, one chain again and again, us", 3150, func(f *Figures) float64 { return f.TracedUS }),
		lru("lookup without trace text, us", 620, func(f *Figures) float64 { return f.LookupUS }),
		lru("miss at depth 0, us", 38.7, func(f *Figures) float64 { return f.MatchUS.Miss }),
		lru("store, 1 pod a block, ns", 3382, func(f *Figures) float64 { return f.ApplyNS.Store }),
		lru("store, 16 pods a block, ns", 1376, func(f *Figures) float64 { return f.ApplyNS.Shared }),
		lru("memory, 1 pod a block, B", 1156, func(f *Figures) float64 { return f.One.Bytes }),
		lru("memory, 16 pods a block, B", 278, func(f *Figures) float64 { return f.Sixteen.Bytes }),
		lru("full GC, 1 pod a block, scaled to the rows, ms of CPU", 1130*millions, func(f *Figures) float64 { return f.One.GCCPU }),
		lru("drop of an engine, scaled to the rows, ms", 413*millions, func(f *Figures) float64 { return f.DropMS }),
		ordered("match, one chain again and again, us", 76, func(f *Figures) float64 { return f.MatchUS.Hot }),
		ordered("store, ns", 1670, func(f *Figures) float64 { return f.ApplyNS.Store }),
		ordered("memory, 1 pod a block, B", 371, func(f *Figures) float64 { return f.One.Bytes }),
		radix("match, 1 holder, us", 0.292, func(f *Figures) float64 { return f.MatchUS.OneHot }),
		radix("store, ns", 217, func(f *Figures) float64 { return f.ApplyNS.Store }),
		radix("memory, many holders a block, B", 26.9, func(f *Figures) float64 { return f.Sixteen.Bytes }),
	} {
		for i := range figures {
			if figures[i].Rival == r.Rival {
				r.Here = r.of(&figures[i])
				out = append(out, r.Reach)
			}
		}
	}
	return out
}

type reachOf struct {
	Reach

	of func(f *Figures) float64
}
