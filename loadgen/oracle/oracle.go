// Package oracle holds the running system against the truth: the simulated engines' own caches, and folds of the event
// log. It imports the real services and the real wire; what it expects comes from the engines' hash chains, recomputed
// from tokens, and never from what the services say.
package oracle

import (
	"cmp"
	"encoding/binary"
	"encoding/json"
	"fmt"
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
	Depths    []struct {
		Engine string `json:"engine"`
		GPU    int    `json:"gpu"`
		Any    int    `json:"any"`
	} `json:"depths"`
	Shards []struct {
		Buckets uint64 `json:"buckets"`
		Applied uint64 `json:"applied"`
		Begun   uint64 `json:"begun"`
	} `json:"shards"`
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
// between its two sequences allow. answers is the number of (request, engine) answers judged.
func Possible(log []Logged, records []Record) (violations []string, answers int) {
	all := windows(records)
	pending := slices.Clone(all)
	slices.SortStableFunc(pending, func(a, b *window) int { return cmp.Compare(a.from, b.from) })
	index := prefix.NewIndex()
	var open []*window
	// show shows the present fold to the windows that it stands for: it is the log's state until sequence next.
	show := func(next uint64) {
		for len(pending) > 0 && pending[0].from < next {
			open, pending = append(open, pending[0]), pending[1:]
		}
		for _, w := range open {
			w.see(index)
		}
		open = slices.DeleteFunc(open, func(w *window) bool { return w.to < next })
	}
	for _, m := range log {
		show(m.Seq)
		Fold(index, m)
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

// Fold applies one message to an index of its pool, as any reader of the log must. It refuses nothing: the oracle's engines need no snapshots.
func Fold(index *prefix.Index, m Logged) {
	for _, part := range m.Message.Parts {
		switch body := part.Body.(type) {
		case *eventsv1.Part_Reset_:
			index.Reset(part.Engine, m.Seq)
		case *eventsv1.Part_Delta:
			for _, logged := range body.Delta.Runs {
				if r, err := eventlog.Run(logged); err == nil {
					index.Apply(part.Engine, &r)
				}
			}
		}
	}
	for !index.Sweep(1 << 20) {
	}
}
