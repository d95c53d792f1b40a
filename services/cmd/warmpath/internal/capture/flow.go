package capture

import (
	"encoding/hex"
	"errors"
	"fmt"
	"maps"
	"math/big"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/warmpath/warmpath/libs/blockkey"
	"github.com/warmpath/warmpath/libs/kvevent"
	"github.com/warmpath/warmpath/libs/prefix"
)

// flow follows the streams of a file: each is one cache with its own publisher.
type flow struct {
	name   string
	step   uint64 // that comes next
	seq    uint64 // that comes next
	topic  string // of all its frames; known with the first
	blocks int    // block size, fixed within a stream
	full   bool   // reused blocks were announced again, so copies are counted too high

	engine *prefix.Engine
	index  *prefix.Index
	keys   map[uint64]uint64 // engine hash to the key that the events gave it
	extra  bool              // events of this stream announce extra keys
	lora   bool              // or at least LoRA names
}

const engineID = "engine"

func (f *flow) check(l *line) error {
	if l.Stream != f.name || f.engine == nil {
		f.begin(l)
	}
	if l.Step.String() != strconv.FormatUint(f.step, 10) {
		err := fmt.Errorf("step: want %d, got %s", f.step, l.Step)
		f.step, _ = strconv.ParseUint(l.Step.String(), 10, 64)
		f.step++
		return err
	}
	f.step++
	if l.BlockSize != f.blocks {
		return fmt.Errorf("hash_block_size: %d, but the stream began with %d", l.BlockSize, f.blocks)
	}
	f.full = f.full || strings.Contains(l.Stream, "full_report_mode") || strings.Contains(l.Action, "report_mode=full")
	batch, err := f.frames(l)
	if err != nil {
		return err
	}
	if l.UsageAfter != nil && !(*l.UsageAfter >= 0 && *l.UsageAfter <= 1) {
		return fmt.Errorf("usage_after: %v is no share", *l.UsageAfter)
	}
	f.learn(batch)
	hit := f.checkMatch(l) // of the cache before the step, so before its events
	f.apply(batch)
	return errors.Join(checkRequest(l), hit, f.checkCached(l))
}

func (f *flow) begin(l *line) {
	*f = flow{name: l.Stream, blocks: l.BlockSize, index: prefix.NewIndex(), keys: make(map[uint64]uint64)}
	f.engine = prefix.NewEngine(prefix.EngineOptions{Pool: f.scope(nil).Pool, BlockSize: f.blocks})
}

// scope is that of the chains of a request, or of none.
func (f *flow) scope(r *request) blockkey.Scope {
	s := blockkey.Scope{Pool: "recording", BlockSize: f.blocks}
	if r != nil {
		s.LoRA, s.Salt = r.LoRAName, r.Salt
	}
	return s
}

// frames judges what a step published: nothing, or the batch that follows the one before.
func (f *flow) frames(l *line) (*kvevent.Batch, error) {
	if l.Frames == nil {
		if l.Decoded != nil || l.Seq != "" {
			return nil, errors.New("decoded or seq without frames")
		}
		return &kvevent.Batch{}, nil
	}
	batch, err := readFrames(l)
	if err != nil {
		return nil, err
	}
	if f.seq > 0 && l.Frames[0] != f.topic {
		return nil, fmt.Errorf("topic: the frame has %.80s, earlier ones %.80s", l.Frames[0], f.topic)
	}
	f.topic = l.Frames[0]
	want := f.seq
	f.seq, _ = strconv.ParseUint(l.Seq.String(), 10, 64)
	f.seq++
	if want != f.seq-1 {
		return nil, fmt.Errorf("seq: want %d, got %s", want, l.Seq)
	}
	return batch, nil
}

// learn notes what the events of this version can tell.
func (f *flow) learn(b *kvevent.Batch) {
	for i := range b.Events {
		f.extra = f.extra || b.Events[i].HasExtra
		f.lora = f.lora || b.Events[i].HasExtra || b.Events[i].LoRAName != ""
	}
}

func (f *flow) apply(b *kvevent.Batch) {
	var runs []prefix.Run
	for i := range b.Events {
		runs = f.engine.Fold(&b.Events[i], runs)
	}
	for i := range runs {
		f.index.Apply(engineID, &runs[i])
		for j, hash := range runs[i].Hashes {
			if j < len(runs[i].Keys) {
				f.keys[hash] = runs[i].Keys[j]
			}
		}
	}
}

var prefixHit = regexp.MustCompile(`\(prefix hit (\d+) tokens\)`)

// checkMatch compares what the index finds cached of a request with what vLLM found. vLLM computes at least the last
// token, so a prompt is never matched whole.
func (f *flow) checkMatch(l *line) error {
	said := prefixHit.FindStringSubmatch(l.Action)
	if said == nil {
		return nil
	}
	if l.Request == nil || len(l.Request.Tokens) == 0 {
		return errors.New("prefix hit without a request")
	}
	depth := 0
	for _, d := range f.index.Match(f.requestKeys(l), nil) {
		depth = d.GPU
	}
	got := min(depth, (len(l.Request.Tokens)-1)/f.blocks) * f.blocks
	if strconv.Itoa(got) != said[1] {
		return fmt.Errorf("prefix hit: want %s tokens, the index matches %d", said[1], got)
	}
	return nil
}

// requestKeys are the block keys of a request. Where the events of this version cannot tell what distinguishes the
// request (salt and images before v0.17, LoRA names before v0.14), its blocks have the keys that the events gave to
// their hashes, as far as they were announced.
func (f *flow) requestKeys(l *line) []uint64 {
	r := l.Request
	told := f.extra || r.Salt == "" && len(r.MM) == 0 && (f.lora || r.LoRAName == "" && r.LoRAID == 0)
	if told {
		var items []blockkey.Item
		for _, m := range r.MM {
			items = append(items, blockkey.Item{ID: m.Identifier, Start: m.Offset})
		}
		return blockkey.Keys(nil, f.scope(r), r.Tokens, items)
	}
	var keys []uint64
	for _, v := range r.Hashes {
		hash, err := recordedLow64(fmt.Sprint(v), l.Algo)
		key, known := f.keys[hash]
		if err != nil || !known {
			break
		}
		keys = append(keys, key)
	}
	return keys
}

// checkCached compares the copies counted from the events with the physical copies in vLLM's cache, block by block.
func (f *flow) checkCached(l *line) error {
	want := make(map[string]int, len(l.CachedAfter))
	for id, copies := range l.CachedAfter {
		text, group, ok := strings.Cut(id, ":")
		hash, err := recordedLow64(text, l.Algo)
		if !ok || err != nil {
			return fmt.Errorf("cached_after: no block and group: %.80q", id)
		}
		want[fmt.Sprintf("%016x:%s", hash, group)] += copies
	}
	got := make(map[string]int)
	f.engine.Copies(func(tier prefix.Tier, group int, hash uint64, copies int) bool {
		if tier == prefix.GPU {
			got[fmt.Sprintf("%016x:%d", hash, group)] += copies
		}
		return true
	})
	return f.differCached(want, got)
}

func (f *flow) differCached(want, got map[string]int) error {
	for _, id := range slices.Sorted(maps.Keys(want)) {
		if want[id] != got[id] && !(f.full && want[id] > 0 && got[id] > 0) {
			return fmt.Errorf("cached_after: block %s: want %d copies, counted %d", id, want[id], got[id])
		}
	}
	for _, id := range slices.Sorted(maps.Keys(got)) {
		if want[id] == 0 && got[id] != 0 {
			return fmt.Errorf("cached_after: block %s: want none, counted %d", id, got[id])
		}
	}
	return nil
}

// recordedLow64 reads the low 64 bits of a recorded hash: hexadecimal of a digest, or a decimal integer.
func recordedLow64(text, algo string) (uint64, error) {
	size := 64
	if strings.HasPrefix(algo, "xxhash") {
		size = 32
	}
	if len(text) == size {
		if raw, err := hex.DecodeString(text); err == nil {
			return blockkey.Low64(raw), nil
		}
	}
	n, ok := new(big.Int).SetString(text, 10)
	if !ok {
		return 0, fmt.Errorf("no hash: %.80q", text)
	}
	mask := new(big.Int).SetUint64(^uint64(0))
	return n.And(n, mask).Uint64(), nil // of a negative integer: its two's complement
}
