package router

import (
	"encoding/binary"
	"time"

	scorerv1 "github.com/warmpath/warmpath/proto/warmpath/scorer/v1"
)

const (
	recordVersion = 1
	maxRecordKeys = 2048
)

// Outcomes of a request that an engine was chosen for.
const (
	outcomeOK        = "ok"
	outcomeCancelled = "cancelled"   // the client left
	outcomeRefused   = "refused"     // the engine answered with a status of 400 or more
	outcomeLost      = "lost"        // the engine failed after the first byte
	outcomeNoAnswer  = "unreachable" // no engine answered
)

// record is the request record in the stream: the decision line and what came of it. It has no prompt and no tokens.
type record struct {
	Version int    `json:"v"`
	Router  string `json:"router"`
	Pool    string `json:"pool"`
	LoRA    string `json:"lora,omitempty"`
	API     string `json:"api"`
	Arrived int64  `json:"arrived_us"` // microseconds since 1970
	line
	Engine     string  `json:"engine"` // id of the chosen engine
	Generation uint64  `json:"generation"`
	Policy     string  `json:"policy"`
	Depths     []depth `json:"depths,omitempty"`
	Shards     []shard `json:"shards,omitempty"`
	BlockSize  int     `json:"block_size,omitempty"`
	Keys       []byte  `json:"keys,omitempty"` // block keys, 8 bytes each, little endian, the first 2,048
	Source     string  `json:"source,omitempty"`

	Tenant string  `json:"tenant,omitempty"`
	Tier   string  `json:"tier,omitempty"`
	Waited float64 `json:"queued_s"` // in the router, for room or for an engine

	PromptTokens    int      `json:"prompt_tokens"` // predicted; measured where the engine reported usage
	CachedPredicted int      `json:"cached_predicted"`
	CachedMeasured  *int     `json:"cached_measured"` // null is no report
	Computed        int      `json:"computed_tokens"` // of the prompt, not cached where it was computed: measured where that was reported
	Prefill         *float64 `json:"prefill_s"`       // that this took; null where other prompts were before it, or nobody saw its end
	OutputTokens    int      `json:"output_tokens"`
	TTFT            *float64 `json:"ttft_s"`           // null without a first byte of a stream
	TTFTPredicted   float64  `json:"ttft_predicted_s"` // at the first choice
	ITL             *float64 `json:"itl_s"`            // mean; null below two tokens
	Seconds         float64  `json:"seconds"`
	Retries         int      `json:"retries"`
	Status          int      `json:"status"`
	Outcome         string   `json:"outcome"`
}

// depth is how many leading blocks the index said that an engine holds.
type depth struct {
	Engine     string `json:"engine"`
	GPU        uint32 `json:"gpu"`
	Any        uint32 `json:"any"`
	Generation uint64 `json:"generation"`
}

// shard says which state of the event log an index member answered from.
type shard struct {
	Member  string `json:"member"`
	Buckets uint64 `json:"buckets"`
	Applied uint64 `json:"applied"`
	Begun   uint64 `json:"begun"`
}

// record makes the record of a request that has ended, without what the scorer said.
func (x *exchange) record(router string, now time.Time) *record {
	r := &record{
		Version: recordVersion, Router: router, Pool: x.q.pool.ID, LoRA: x.q.lora, API: x.q.path,
		Arrived: x.q.arrived.UnixMicro(), line: x.line, Engine: x.res.Engine.ID,
		Generation: x.res.Engine.Generation, Policy: string(x.rt.policy), PromptTokens: x.res.Prompt, CachedPredicted: x.res.Cached,
		OutputTokens: x.output(), Seconds: now.Sub(x.q.arrived).Seconds(),
		Retries: x.retries, Status: x.status, Outcome: x.outcome,
		Tenant: x.q.caller.tenant(), Tier: x.q.caller.tier(), Waited: x.q.visit.Waited.Seconds(), TTFTPredicted: x.predicted.Seconds(),
	}
	if x.usage != nil {
		r.PromptTokens = x.usage.Prompt
		if x.usage.HasCached && !x.apart.remote() { // else it tells of another engine's cache
			r.CachedMeasured = &x.usage.Cached
		}
	}
	r.computed(x)
	r.times(x)
	return r
}

// matches adds what the scorer said.
func (r *record) matches(score *scorerv1.ScoreResponse) {
	if score == nil {
		return
	}
	r.BlockSize, r.Source = int(score.BlockSize), score.Source
	keys := score.Keys[:min(len(score.Keys), maxRecordKeys)]
	r.Keys = make([]byte, 0, 8*len(keys))
	for _, key := range keys {
		r.Keys = binary.LittleEndian.AppendUint64(r.Keys, key)
	}
	r.Depths = make([]depth, 0, len(score.Engines))
	for _, e := range score.Engines {
		r.Depths = append(r.Depths, depth{e.Engine, e.Gpu, e.Any, e.Generation})
	}
	for _, s := range score.Shards {
		r.Shards = append(r.Shards, shard{s.Member, s.Buckets, s.Applied, s.Begun})
	}
}

// computed notes the prefill, by whichever engine it was.
func (r *record) computed(x *exchange) {
	at := x.res
	cached := r.CachedMeasured
	if x.apart.remote() && x.res.Prefill != nil {
		at, cached = x.res.Prefill, x.apart.line.CachedMeasured
	}
	if r.Computed = at.Uncached; cached != nil {
		r.Computed = max(0, r.PromptTokens-*cached)
	}
	if took, known := at.PrefillTook(); known {
		seconds := took.Seconds()
		r.Prefill = &seconds
	}
}

func (r *record) times(x *exchange) {
	if !x.q.stream || x.first.IsZero() {
		return
	}
	ttft := x.first.Sub(x.q.arrived).Seconds()
	r.TTFT = &ttft
	if n := x.output(); n > 1 && x.last.After(x.first) {
		itl := x.last.Sub(x.first).Seconds() / float64(n-1)
		r.ITL = &itl
	}
}
