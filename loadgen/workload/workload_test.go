package workload

import (
	"bytes"
	"compress/gzip"
	"errors"
	"math"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"
)

const twoLines = `{"timestamp": 3000, "input_length": 600, "output_length": 5, "hash_ids": [0, 2]}

{"timestamp": 0, "input_length": 512, "output_length": 7, "hash_ids": [0]}
`

func zipped(s string) string {
	var b bytes.Buffer
	w := gzip.NewWriter(&b)
	w.Write([]byte(s))
	w.Close()
	return b.String()
}

func TestRead(t *testing.T) {
	want := []Request{
		{At: 0, Input: 512, Output: 7, Blocks: []uint64{0}},
		{At: 3 * time.Second, Input: 600, Output: 5, Blocks: []uint64{0, 2}},
	}
	for name, text := range map[string]string{"plain": twoLines, "gzip": zipped(twoLines)} {
		got, err := Read(strings.NewReader(text))
		if err != nil || !reflect.DeepEqual(got.Requests, want) {
			t.Errorf("%s: %+v, %v", name, got, err)
		}
	}
}

func TestReadNamesTheBadLine(t *testing.T) {
	good := `{"timestamp":1,"input_length":1,"output_length":1,"hash_ids":[1]}` + "\n"
	for name, bad := range map[string]string{
		"not JSON":          `{"timestamp":`,
		"no timestamp":      `{"input_length":1,"output_length":1,"hash_ids":[1]}`,
		"negative time":     `{"timestamp":-1,"input_length":1,"output_length":1,"hash_ids":[1]}`,
		"time overflows":    `{"timestamp":9223372036854775807,"input_length":1,"output_length":1,"hash_ids":[1]}`,
		"no input":          `{"timestamp":1,"output_length":1,"hash_ids":[]}`,
		"endless input":     `{"timestamp":1,"input_length":9000000000,"output_length":1,"hash_ids":[1]}`,
		"no output":         `{"timestamp":1,"input_length":1,"output_length":0,"hash_ids":[1]}`,
		"too few ids":       `{"timestamp":1,"input_length":513,"output_length":1,"hash_ids":[1]}`,
		"too many ids":      `{"timestamp":1,"input_length":512,"output_length":1,"hash_ids":[1,2]}`,
		"negative id":       `{"timestamp":1,"input_length":1,"output_length":1,"hash_ids":[-1]}`,
		"line without end":  strings.Repeat("x", maxLine+1),
		"fractional length": `{"timestamp":1,"input_length":1.5,"output_length":1,"hash_ids":[1]}`,
	} {
		_, err := Read(strings.NewReader(good + bad + "\n" + good))
		if !errors.Is(err, ErrTrace) || !strings.Contains(err.Error(), "line 2:") {
			t.Errorf("%s: error %v does not name line 2", name, err)
		}
	}
	for name, text := range map[string]string{"empty": "", "blank": "\n\n", "broken gzip": "\x1f\x8bxx", "cut gzip": zipped(twoLines)[:30]} {
		if _, err := Read(strings.NewReader(text)); !errors.Is(err, ErrTrace) {
			t.Errorf("%s: error %v", name, err)
		}
	}
}

func FuzzRead(f *testing.F) {
	f.Add([]byte(twoLines))
	f.Add([]byte(zipped(twoLines)))
	f.Fuzz(func(t *testing.T, text []byte) {
		got, err := Read(bytes.NewReader(text))
		if (err == nil) == (len(got.Requests) == 0) {
			t.Fatalf("%d requests and error %v", len(got.Requests), err)
		}
		for _, r := range got.Requests {
			if r.Input <= 1<<16 && len(Tokens{}.Append(nil, r)) != r.Input {
				t.Fatalf("prompt of another length than %d", r.Input)
			}
		}
	})
}

func TestFindLooksInTheFoldersAbove(t *testing.T) {
	root := t.TempDir()
	deep := filepath.Join(root, "a", "b")
	want := filepath.Join(root, "shared", "traces", "mooncake_conversation.jsonl")
	for _, dir := range []string{deep, filepath.Dir(want)} {
		if err := os.MkdirAll(dir, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.WriteFile(want, []byte(twoLines), 0o644); err != nil {
		t.Fatal(err)
	}
	got, ok := Find(deep)
	if !ok || got != want {
		t.Fatalf("found %q, %t", got, ok)
	}
	trace, err := Open(got)
	if err != nil || trace.Name != Conversation || len(trace.Requests) != 2 {
		t.Errorf("opened %+v, %v", trace, err)
	}
}

func TestSliceAndJitter(t *testing.T) {
	trace := Generate(10*time.Minute, 1)
	part := trace.Slice(2*time.Minute, 5*time.Minute)
	n := 0
	for _, r := range trace.Requests {
		if r.At >= 2*time.Minute && r.At < 5*time.Minute {
			if part.Requests[n].At != r.At-2*time.Minute || part.Requests[n].Input != r.Input {
				t.Fatalf("request %d is %+v, want %+v two minutes earlier", n, part.Requests[n], r)
			}
			n++
		}
	}
	if n == 0 || n != len(part.Requests) {
		t.Fatalf("%d requests in the slice, %d in the trace", len(part.Requests), n)
	}
	a, b := part.Jitter(3*time.Second, 7), part.Jitter(3*time.Second, 7)
	if !reflect.DeepEqual(a, b) {
		t.Error("one seed gives two jitters")
	}
	if reflect.DeepEqual(a, part.Jitter(3*time.Second, 8)) || reflect.DeepEqual(a, part) {
		t.Error("jitter does nothing")
	}
	onGrid := 0
	for i, r := range a.Requests {
		if i > 0 && r.At < a.Requests[i-1].At {
			t.Fatal("jittered requests are out of order")
		}
		if r.At%arrivalGrid == 0 {
			onGrid++
		}
	}
	if onGrid > 0 || part.Requests[1].At%arrivalGrid != 0 {
		t.Errorf("%d jittered arrivals on the grid", onGrid)
	}
}

func TestEqualBlocksAreEqualTokens(t *testing.T) {
	a := Request{Input: 1100, Blocks: []uint64{0, 5, 9}}
	b := Request{Input: 1500, Blocks: []uint64{0, 5, 7}}
	var tokens Tokens
	ta, tb := tokens.Append(nil, a), tokens.Append(nil, b)
	if len(ta) != 1100 || len(tb) != 1500 {
		t.Fatalf("%d and %d tokens", len(ta), len(tb))
	}
	if !slices.Equal(ta[:1024], tb[:1024]) || slices.Equal(ta[1024:], tb[1024:1100]) {
		t.Error("prompts share something else than their first two blocks")
	}
	if slices.Equal(ta[:512], ta[512:1024]) {
		t.Error("two block ids give the same tokens")
	}
	if !slices.Equal(ta, tokens.Append(nil, a)) || slices.Equal(ta, Tokens{Seed: 1}.Append(nil, a)) {
		t.Error("tokens are not a function of seed and ids")
	}
	for _, token := range (Tokens{Vocabulary: 1000}).Append(nil, b) {
		if token < reserved || token >= 1000 {
			t.Fatalf("token %d is not in 256 to 999", token)
		}
	}
}

// The first token ids of block 0 are the same on every machine and in every release, so that runs can be compared.
func TestTokensAreStable(t *testing.T) {
	got := Tokens{}.Append(nil, Request{Input: 4, Blocks: []uint64{0}})
	if want := []uint32{28295, 13954, 1095, 31075}; !slices.Equal(got, want) {
		t.Errorf("tokens %v, want %v", got, want)
	}
}

func TestGeneratorLandsOnThePublishedStatistics(t *testing.T) {
	for seed := range uint64(3) {
		trace := Generate(3537*time.Second, seed)
		s := trace.Stats()
		for _, c := range []struct {
			name                 string
			got, want, tolerance float64 // tolerance is a share of want
		}{
			{"rate", s.Rate, 3.40, .05},
			{"input mean", s.Input.Mean, 12_035, .08},
			{"input p50", float64(s.Input.P50), 6_909, .12},
			{"input p90", float64(s.Input.P90), 27_367, .13},
			{"input p99", float64(s.Input.P99), 85_400, .12},
			{"output mean", s.Output.Mean, 343, .03},
			{"output p50", float64(s.Output.P50), 350, .06},
			{"output p90", float64(s.Output.P90), 597, .06},
			{"output p99", float64(s.Output.P99), 1_118, .06},
			{"share of cacheable blocks", s.HitRatio, .3664, .06},
			{"share of cacheable tokens", s.TokenHitRatio, .3736, .06},
			{"distinct blocks", float64(s.Distinct), 182_790, .08},
		} {
			if math.Abs(c.got-c.want) > c.tolerance*c.want {
				t.Errorf("seed %d: %s %.4g, published %.4g, tolerance %.0f %%", seed, c.name, c.got, c.want, 100*c.tolerance)
			}
		}
		for _, r := range trace.Requests {
			if r.Blocks[0] != sharedBlock || len(r.Blocks) != (r.Input+BlockTokens-1)/BlockTokens || r.Input > longestPrompt {
				t.Fatalf("seed %d: request of %d tokens with %d blocks from block %d", seed, r.Input, len(r.Blocks), r.Blocks[0])
			}
		}
	}
	if !reflect.DeepEqual(Generate(time.Minute, 5), Generate(time.Minute, 5)) {
		t.Error("one seed gives two traces")
	}
}

func TestConversationTrace(t *testing.T) {
	path, ok := Find(".")
	if !ok {
		t.Skip("the conversation trace is not in a folder shared/traces above")
	}
	trace, err := Open(path)
	if err != nil {
		t.Fatal(err)
	}
	s := trace.Stats()
	if got := math.Round(s.HitRatio*1e4) / 1e4; got != .3664 {
		t.Errorf("share of cacheable blocks %.4f, published .3664", got)
	}
	if got := math.Round(s.TokenHitRatio*1e4) / 1e4; got != .3736 {
		t.Errorf("share of cacheable tokens %.4f, published .3736", got)
	}
	if s.Requests != 12_031 || s.Distinct != 182_790 || s.Input.Max != 126_195 || s.Input.P50 != 6_909 || s.Output.P90 != 597 {
		t.Errorf("statistics %+v are not the published ones", s)
	}
}
