package prefix

import (
	"bufio"
	"encoding/hex"
	"encoding/json"
	"maps"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/warmpath/warmpath/libs/blockkey"
	"github.com/warmpath/warmpath/libs/kvevent"
)

// A goldenStep is one line of a flow that vLLM's own cache manager produced.
type goldenStep struct {
	Stream  string
	Step    int
	Frames  []string
	Request struct {
		Tokens []uint32 `json:"token_ids"`
		Salt   string   `json:"cache_salt"`
		LoRA   string   `json:"lora_name"`
		MM     [][]any  `json:"mm"` // identifier, first token, length
		Embeds any      `json:"prompt_embeds"`
		Hashes []string `json:"block_hashes"`
	}
	CachedAfter map[string]int `json:"cached_after"`
	BlockSize   int            `json:"hash_block_size"`
}

// cached is the ground truth by the keys that copies are counted by, and for hits the hashes of group 0.
func (s *goldenStep) cached(t *testing.T) map[copyKey]int {
	want := map[copyKey]int{}
	for k, n := range s.CachedAfter {
		hash, group, _ := strings.Cut(k, ":")
		g, err := strconv.Atoi(group)
		if err != nil {
			t.Fatal(err)
		}
		want[copyKey{GPU, g, low64(t, hash)}] += n
	}
	return want
}

func low64(t *testing.T, digest string) uint64 {
	h, err := strconv.ParseUint(digest[len(digest)-16:], 16, 64)
	if err != nil {
		t.Fatal(err)
	}
	return h
}

func goldenSteps(t *testing.T, file string) (steps []goldenStep) {
	f, err := os.Open(file)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	in := bufio.NewScanner(f)
	in.Buffer(nil, 1<<22)
	for in.Scan() {
		var s goldenStep
		if err := json.Unmarshal(in.Bytes(), &s); err != nil {
			t.Fatal(err)
		}
		steps = append(steps, s)
	}
	return steps
}

func goldenBatch(t *testing.T, frames []string) *kvevent.Batch {
	payload, err := hex.DecodeString(frames[len(frames)-1])
	if err != nil {
		t.Fatal(err)
	}
	var d kvevent.Decoder
	var b kvevent.Batch
	if err := d.Decode(payload, &b); err != nil || b.Bad != 0 {
		t.Fatalf("decode: %v, %d bad events %v", err, b.Bad, b.Errs)
	}
	return &b
}

// Copies counted are the copies that vLLM holds after every step of every flow, and where no hash is shared by group
// or item, a prompt's depth is the number of its leading blocks that vLLM holds.
func TestGoldenFlows(t *testing.T) {
	files, err := filepath.Glob("../kvevent/testdata/golden/flow_*.jsonl")
	if err != nil || len(files) == 0 {
		t.Fatalf("no flows: %v", err)
	}
	steps, depths := 0, 0
	for _, file := range files {
		var e, shadow *Engine
		var x *Index
		stream := ""
		for _, s := range goldenSteps(t, file) {
			if s.Stream != stream {
				o := EngineOptions{Pool: "p", BlockSize: s.BlockSize}
				e, shadow, x, stream = NewEngine(o), NewEngine(o), NewIndex(), s.Stream
				x.Reset("e", 1)
			}
			if len(s.Frames) > 0 {
				b := goldenBatch(t, s.Frames)
				var runs []Run
				for i := range b.Events {
					runs = e.Fold(&b.Events[i], runs)
				}
				for i := range runs {
					shadow.Restore(&runs[i])
					x.Apply("e", &runs[i])
				}
			}
			got, want := copiesOf(e), s.cached(t)
			if s.Stream == "full_report_mode" { // announces reused blocks again: only membership holds
				for k := range got {
					got[k] = min(got[k], 1)
				}
				for k := range want {
					want[k] = 1
				}
			}
			if !maps.Equal(got, want) {
				t.Fatalf("%s %s step %d: copies %v, want %v", filepath.Base(file), s.Stream, s.Step, got, want)
			}
			if !maps.Equal(copiesOf(shadow), copiesOf(e)) || shadow.Stats().Digest != e.Stats().Digest {
				t.Fatalf("%s %s step %d: restored from runs: %+v, want %+v", file, s.Stream, s.Step, shadow.Stats(), e.Stats())
			}
			steps++
			if old := !strings.Contains(file, "main-2026") && !strings.Contains(file, "v0.23"); !old || s.Request.Salt == "" && len(s.Request.MM) == 0 {
				depths += goldenDepth(t, x, &s, want) // old events do not tell salts and items
			}
		}
		if st := e.Stats(); st.UnknownRemovals != 0 || st.Malformed != 0 || st.Refused != "" || st.Partial != "" {
			t.Errorf("%s: %+v", filepath.Base(file), st)
		}
	}
	if steps < 500 || depths < 100 {
		t.Errorf("%d steps, %d depths compared", steps, depths)
	}
	t.Logf("%d steps, %d depths", steps, depths)
}

// goldenDepth compares the depth of a step's own prompt, and returns whether it could be.
func goldenDepth(t *testing.T, x *Index, s *goldenStep, cached map[copyKey]int) int {
	if s.Request.Embeds != nil || len(s.Request.Hashes) == 0 {
		return 0
	}
	scope := blockkey.Scope{Pool: "p", BlockSize: s.BlockSize, LoRA: s.Request.LoRA, Salt: s.Request.Salt}
	var items []blockkey.Item
	for _, m := range s.Request.MM {
		items = append(items, blockkey.Item{ID: m[0].(string), Start: int(m[1].(float64))})
	}
	keys := blockkey.Keys(nil, scope, s.Request.Tokens, items)
	want := 0
	for i := range keys {
		if i >= len(s.Request.Hashes) || cached[copyKey{GPU, 0, low64(t, s.Request.Hashes[i])}] == 0 {
			break
		}
		want++
	}
	if got := x.Match(keys, nil); len(got) != 1 || got[0].GPU != want || got[0].Any != want {
		t.Errorf("%s step %d: depth %v of %d keys, want %d", s.Stream, s.Step, got, len(keys), want)
	}
	return 1
}
