// Package oracle holds the running system against the truth: the simulated engines' own caches, and folds of the event
// log. It imports the real services and the real wire; what it expects comes from the engines' hash chains, recomputed
// from tokens, and never from what the services say.
package oracle

import (
	"cmp"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"maps"
	"math"
	"slices"

	"google.golang.org/protobuf/proto"

	"github.com/warmpath/warmpath/libs/blockkey"
	"github.com/warmpath/warmpath/libs/eventlog"
	"github.com/warmpath/warmpath/libs/fleet"
	"github.com/warmpath/warmpath/libs/prefix"
	eventsv1 "github.com/warmpath/warmpath/proto/warmpath/events/v1"
)

// Prompt is what a request's keys and hashes are made from.
type Prompt struct {
	Tokens     []uint32
	LoRA, Salt string
}

// Hashes are the engine's own hashes of the prompt's whole blocks, as its events spell them.
func (p Prompt) Hashes(rules blockkey.Rules) (hashes []uint64) {
	for _, hash := range rules.Hashes(&blockkey.Request{Tokens: p.Tokens, LoRAName: p.LoRA, Salt: p.Salt}) {
		hashes = append(hashes, blockkey.Low64(hash))
	}
	return hashes
}

// Depth returns how many of these leading blocks an engine with these copies holds.
func Depth(hashes []uint64, cached map[uint64]int) int {
	missing := slices.IndexFunc(hashes, func(hash uint64) bool { return cached[hash] == 0 })
	if missing < 0 {
		return len(hashes)
	}
	return missing
}

// Logged is one message of the event log.
type Logged struct {
	Seq     uint64
	Pool    string
	Bucket  int
	Message *eventsv1.Message
}

// ReadLogged decodes a message.
func ReadLogged(seq uint64, pool string, bucket int, data []byte) (Logged, error) {
	m := new(eventsv1.Message)
	if err := proto.Unmarshal(data, m); err != nil {
		return Logged{}, fmt.Errorf("decode message %d: %w", seq, err)
	}
	return Logged{Seq: seq, Pool: pool, Bucket: bucket, Message: m}, nil
}

// Record is what the oracle reads of a request record.
type Record struct {
	RequestID string `json:"x-request-id"`
	API       string `json:"api"`
	Unknown   bool   `json:"unknown"`
	Partial   bool   `json:"partial"`
	Packed    []byte `json:"keys"`
	Source    string `json:"source"` // of the tokens
	Engine    string `json:"engine"`
	Prompt    int    `json:"prompt_tokens"`
	Cached    *int   `json:"cached_measured"`

	Depths []RecordDepth `json:"depths"`
	Shards []RecordShard `json:"shards"`
}

// RecordDepth is how many blocks an engine was said to hold.
type RecordDepth struct {
	Engine string `json:"engine"`
	GPU    int    `json:"gpu"`
	Any    int    `json:"any"`
}

// RecordShard is which buckets a member answered for, and the sequences that its answer may stand for.
type RecordShard struct {
	Buckets uint64 `json:"buckets"`
	Applied uint64 `json:"applied"`
	Begun   uint64 `json:"begun"`
}

// ReadRecord decodes a request record.
func ReadRecord(data []byte) (Record, error) {
	var r Record
	if err := json.Unmarshal(data, &r); err != nil {
		return r, fmt.Errorf("decode record: %w", err)
	}
	return r, nil
}

// Keys are the block keys that the scorer asked for.
func (r Record) Keys() []uint64 {
	var keys []uint64
	for packed := r.Packed; len(packed) >= 8; packed = packed[8:] {
		keys = append(keys, binary.LittleEndian.Uint64(packed))
	}
	return keys
}

// Possible folds the log once and returns one line for each answer in the records that lies outside what the folds
// between its two sequences allow, and one for each digest or snapshot in the log that contradicts the log itself.
// answers is the number of (request, engine) answers judged.
func Possible(log []Logged, records []Record) (violations []string, answers int) {
	all := windows(records)
	pending := slices.Clone(all)
	slices.SortStableFunc(pending, func(a, b *window) int { return cmp.Compare(a.from, b.from) })
	fold := NewFold()
	var open []*window
	// show shows the present fold to the windows that it stands for: it is the log's state until sequence next.
	show := func(next uint64) {
		for len(pending) > 0 && pending[0].from < next {
			open, pending = append(open, pending[0]), pending[1:]
		}
		for _, w := range open {
			w.see(fold.Index)
		}
		open = slices.DeleteFunc(open, func(w *window) bool { return w.to < next })
	}
	for _, m := range log {
		show(m.Seq)
		violations = append(violations, fold.Add(m)...)
	}
	show(math.MaxUint64)
	for _, w := range all {
		if w.gpu < w.low || w.gpu > w.high {
			violations = append(violations, fmt.Sprintf("request %s: engine %s matched %d blocks; between sequences %d and %d it held %d to %d",
				w.request, w.engine, w.gpu, w.from, w.to, w.low, w.high))
		}
	}
	return violations, len(all)
}

// window is an answer about one engine, the sequences of the log that it may stand for, and what the folds say.
type window struct {
	request   string
	keys      []uint64
	engine    string
	gpu       int
	from, to  uint64
	low, high int
}

func windows(records []Record) []*window {
	var all []*window
	for _, r := range records {
		if r.Unknown {
			continue
		}
		keys := r.Keys()
		for _, d := range r.Depths {
			for _, s := range r.Shards {
				if s.Buckets>>fleet.Bucket(d.Engine)&1 == 1 {
					all = append(all, &window{
						request: r.RequestID, keys: keys, engine: d.Engine, gpu: d.GPU,
						from: s.Applied, to: s.Begun, low: math.MaxInt, high: -1,
					})
				}
			}
		}
	}
	return all
}

func (w *window) see(index *prefix.Index) {
	held := 0
	for _, d := range index.Match(w.keys, nil) {
		if d.Engine == w.engine {
			held = d.GPU
		}
	}
	w.low, w.high = min(w.low, held), max(w.high, held)
}

// Fold is a log folded into an index of its pool, as any reader of the log must.
type Fold struct {
	Index *prefix.Index
	parts map[string][]prefix.Run // of snapshots that have not ended, by engine
}

// NewFold returns the fold of an empty log.
func NewFold() *Fold {
	return &Fold{Index: prefix.NewIndex(), parts: make(map[string][]prefix.Run)}
}

// Add applies one message. It refuses nothing, but returns one line for each digest that is not that of the fold, and
// for each snapshot that is not what it says it is.
func (f *Fold) Add(m Logged) (contradictions []string) {
	for _, part := range m.Message.Parts {
		was, known := f.Index.Engine(part.Engine)
		switch body := part.Body.(type) {
		case *eventsv1.Part_Claim:
			maps.DeleteFunc(f.parts, func(engine string, _ []prefix.Run) bool { return fleet.Bucket(engine) == m.Bucket })
		case *eventsv1.Part_Reset_:
			delete(f.parts, part.Engine)
			f.Index.Reset(part.Engine, m.Seq)
		case *eventsv1.Part_Delta:
			for _, r := range runs(body.Delta.Runs) {
				f.Index.Apply(part.Engine, &r)
			}
		case *eventsv1.Part_Digest:
			if known && (was.Digest != body.Digest.Digest || uint64(was.VisibleAny) != body.Digest.Count) {
				contradictions = append(contradictions, fmt.Sprintf("message %d: the digest of %s counts %d blocks, the log %d, or others",
					m.Seq, part.Engine, body.Digest.Count, was.VisibleAny))
			}
		case *eventsv1.Part_Snapshot:
			contradictions = append(contradictions, f.snapshot(m.Seq, part.Engine, body.Snapshot)...)
		}
	}
	for !f.Index.Sweep(1 << 20) {
	}
	return contradictions
}

// snapshot takes one part; the last one replaces what was known of the engine.
func (f *Fold) snapshot(seq uint64, engine string, s *eventsv1.Snapshot) (contradictions []string) {
	all, begun := f.parts[engine]
	if s.Part != 1 && !begun {
		return nil // its beginning was cut off
	}
	if s.Part == 1 {
		all = nil
	}
	all = append(all, runs(s.Runs)...)
	if f.parts[engine] = all; s.Part != s.Parts {
		return nil
	}
	delete(f.parts, engine)
	f.Index.Replace(engine, s.Generation, func(yield func(*prefix.Run) bool) {
		for i := range all {
			if !yield(&all[i]) {
				return
			}
		}
	})
	if now, _ := f.Index.Engine(engine); now.Digest != s.Digest || uint64(now.VisibleAny) != s.Count {
		return []string{fmt.Sprintf("message %d: the snapshot of %s has %d blocks, and says %d, or others", seq, engine, now.VisibleAny, s.Count)}
	}
	return nil
}

func runs(logged []*eventsv1.Run) (runs []prefix.Run) {
	for _, l := range logged {
		if r, err := eventlog.Run(l); err == nil {
			runs = append(runs, r)
		}
	}
	return runs
}
