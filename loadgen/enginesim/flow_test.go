package enginesim

import (
	"bufio"
	"bytes"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/warmpath/warmpath/libs/blockkey"
	"github.com/warmpath/warmpath/libs/kvevent"
)

// golden is the folder of what genuine vLLM code wrote.
const golden = "../../libs/kvevent/testdata/golden"

// flowStep is one step of a genuine block pool: what was done, and what it held afterwards.
type flowStep struct {
	Stream  string `json:"stream"`
	Action  string `json:"action"`
	Request struct {
		ID     string   `json:"id"`
		Tokens []uint32 `json:"token_ids"`
		Salt   string   `json:"cache_salt"`
		LoRA   string   `json:"lora_name"`
		MM     [][]any  `json:"mm"`
	} `json:"request"`
	Frames []string       `json:"frames"`
	Cached map[string]int `json:"cached_after"`
	Usage  float64        `json:"usage_after"`
}

func readLines[T any](t *testing.T, name string) []T {
	t.Helper()
	f, err := os.Open(filepath.Join(golden, name))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	var all []T
	lines := bufio.NewScanner(f)
	lines.Buffer(nil, 1<<24)
	for lines.Scan() {
		var v T
		if err := json.Unmarshal(lines.Bytes(), &v); err != nil {
			t.Fatal(err)
		}
		all = append(all, v)
	}
	return all
}

// flow replays a genuine stream on a Core: it plays the scheduler as its recorder did, one request at a time.
type flow struct {
	core   *Core
	answer map[string][]uint32 // longest token list of a request, by id
	prompt map[string]int
}

func (f *flow) run(t *testing.T, st flowStep) []kvevent.Event {
	t.Helper()
	c, id := f.core, st.Request.ID
	c.events, c.gone = nil, nil
	switch {
	case strings.HasPrefix(st.Action, "free "):
		if !c.Abort(id) {
			t.Fatalf("%s: no such request", st.Action)
		}
		return nil
	case strings.HasPrefix(st.Action, "reset"):
		if !c.Reset() {
			t.Fatal("reset refused")
		}
		c.cleared = false
		return []kvevent.Event{{Kind: kvevent.Cleared}}
	}
	if c.ids[id] == nil {
		r := &Request{ID: id, Prompt: st.Request.Tokens, MaxTokens: 1000, LoRA: st.Request.LoRA, LoRAID: 7, Salt: st.Request.Salt}
		for _, m := range st.Request.MM {
			r.Items = append(r.Items, blockkey.Feature{ID: m[0].(string), Start: int(m[1].(float64)), Length: int(m[2].(float64))})
		}
		f.prompt[id] = len(r.Prompt)
		if err := c.Submit(r); err != nil {
			t.Fatal(err)
		}
	}
	s := c.ids[id]
	c.o.TokenBudget = 8192
	if i := strings.Index(st.Action, " chunk "); i >= 0 && strings.HasPrefix(st.Action, "mm chunked") {
		fmt.Sscanf(st.Action[i:], " chunk %d", &c.o.TokenBudget)
	}
	if strings.Contains(st.Action, "evicts chunk 48") {
		c.o.TokenBudget = 48
	}
	var hit int
	checkHit := !s.seen && strings.Contains(st.Action, "(prefix hit ")
	others := c.running
	c.running = nil
	for _, o := range others {
		if o == s {
			c.running = append(c.running, s)
		}
	}
	fresh := len(c.running) == 0
	c.schedule()
	if checkHit {
		fmt.Sscanf(st.Action[strings.Index(st.Action, "(prefix hit "):], "(prefix hit %d", &hit)
		if s.hit != hit {
			t.Fatalf("%s: hit %d", st.Action, s.hit)
		}
	}
	c.update(&StepResult{})
	if fresh {
		others = append(others, c.running...)
	}
	c.running = others
	return c.events
}

// The core does what genuine block pools did, step by step: the same cache and usage after every step, and events of
// the same bytes: chains, removals, duplicates, clears, adapters, salts, multimodal items.
func TestEventsOfGenuineStreams(t *testing.T) {
	for _, tc := range []struct {
		file     string
		hash     Hasher
		encoding kvevent.Encoding
	}{
		{"flow_main-2026-08-17_sha256_cbor_seed0_int.jsonl", VLLMHash{blockkey.SHA256CBOR, "0"}, kvevent.MapForm},
		{"flow_main-2026-08-17_xxhash_cbor_seed0_int.jsonl", VLLMHash{blockkey.XXHashCBOR, "0"}, kvevent.MapForm},
		{"flow_v0.23.0_sha256_cbor_seed0_int.jsonl", VLLMHash{blockkey.SHA256CBOR, "0"}, kvevent.ArrayForm},
	} {
		t.Run(tc.file, func(t *testing.T) { testFlow(t, tc.file, tc.hash, tc.encoding) })
	}
}

func testFlow(t *testing.T, file string, hash Hasher, encoding kvevent.Encoding) {
	// The recorder's pools keep one block as the null block, so they hold one less.
	blocks := map[string]int{"full_attention_13_blocks": 12, "extra_keys": 63, "block64_dp3_topic": 19}
	steps := readLines[flowStep](t, file)
	var f *flow
	stream, compared := "", 0
	for i, st := range steps {
		if blocks[st.Stream] == 0 {
			continue
		}
		if st.Stream != stream {
			stream = st.Stream
			f = &flow{answer: map[string][]uint32{}, prompt: map[string]int{}}
			for _, x := range steps {
				if x.Stream == stream && len(x.Request.Tokens) > len(f.answer[x.Request.ID]) {
					f.answer[x.Request.ID] = x.Request.Tokens
				}
			}
			o := CoreOptions{Blocks: blocks[stream], Hash: hash, Answer: func(r *Request, position int) uint32 {
				if at := f.prompt[r.ID] + position; at < len(f.answer[r.ID]) {
					return f.answer[r.ID][at]
				}
				return 0
			}}
			if strings.HasPrefix(stream, "block64") {
				o.BlockSize = 64
			}
			f.core = NewCore(o)
		}
		got := f.run(t, st)
		where := fmt.Sprintf("line %d, %s: %s", i+1, st.Stream, st.Action)
		compareEvents(t, where, got, st.Frames, encoding)
		want := map[uint64]int{}
		for key, n := range st.Cached {
			full, err := hex.DecodeString(key[:strings.IndexByte(key, ':')])
			if err != nil {
				t.Fatal(err)
			}
			want[blockkey.Low64(full)] += n
		}
		if cached := f.core.Cached(); fmt.Sprint(cached) != fmt.Sprint(want) {
			t.Fatalf("%s: cached %v, want %v", where, cached, want)
		}
		if diff := f.core.Stats().Usage() - st.Usage; diff > 1e-9 || diff < -1e-9 {
			t.Fatalf("%s: usage %v, want %v", where, f.core.Stats().Usage(), st.Usage)
		}
		compared++
	}
	if compared < 60 {
		t.Fatalf("compared %d steps", compared)
	}
}

// compareEvents compares events with the payload of genuine frames: every field, then every byte.
func compareEvents(t *testing.T, where string, got []kvevent.Event, frames []string, encoding kvevent.Encoding) {
	t.Helper()
	if frames == nil {
		if len(got) != 0 {
			t.Fatalf("%s: %d events, want none", where, len(got))
		}
		return
	}
	payload, err := hex.DecodeString(frames[2])
	if err != nil {
		t.Fatal(err)
	}
	var want kvevent.Batch
	if err := new(kvevent.Decoder).Decode(payload, &want); err != nil {
		t.Fatal(err)
	}
	if len(got) != len(want.Events) {
		t.Fatalf("%s: %d events, want %d", where, len(got), len(want.Events))
	}
	for i := range got {
		if a, b := fmt.Sprintf("%+v", got[i]), fmt.Sprintf("%+v", want.Events[i]); a != b {
			t.Fatalf("%s: event %d\n got %s\nwant %s", where, i, a, b)
		}
	}
	want.Events = got
	if ours := kvevent.Append(nil, &want, encoding); !bytes.Equal(ours, payload) {
		t.Fatalf("%s: encoded\n %x\nwant %x", where, ours, payload)
	}
}
