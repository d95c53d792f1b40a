package tokens

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"os"
	"slices"
	"strings"
	"sync/atomic"

	"testing"
	"time"

	scorerv1 "github.com/warmpath/warmpath/proto/warmpath/scorer/v1"
	"github.com/warmpath/warmpath/services/scorer/internal/bpe"
)

// small returns the small tokenizer of package bpe, as one family or another uses its vocabulary.
func small(t testing.TB, family string) *bpe.Tokenizer {
	t.Helper()
	data, err := os.ReadFile("../bpe/testdata/small.json")
	if err != nil {
		t.Fatal(err)
	}
	level := `{"type":"ByteLevel","add_prefix_space":false,"trim_offsets":false,"use_regex":%t}`
	split := `{"type":"Sequence","pretokenizers":[{"type":"Split","behavior":"Isolated","invert":false,"pattern":{"Regex":%s}},` + fmt.Sprintf(level, false) + `]}`
	number := "{1,3}"
	if family == "qwen2" {
		number = ""
	}
	expression, _ := json.Marshal(`(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}` + number + `| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+`)
	replace := map[string]string{"pre_tokenizer": fmt.Sprintf(split, expression)}
	switch family {
	case "gpt2":
		replace["pre_tokenizer"] = fmt.Sprintf(level, true)
	case "qwen2":
		replace["normalizer"] = `{"type":"NFC"}`
	case "llama":
		replace["post_processor"] = `{"type":"TemplateProcessing","pair":[],"single":[{"SpecialToken":{"id":"b","type_id":0}},{"Sequence":{"id":"A","type_id":0}}],"special_tokens":{"b":{"id":"b","ids":[676],"tokens":["<|begin|>"]}}}`
	}
	for member, value := range replace {
		data = bytes.Replace(data, []byte(`"`+member+`":null`), []byte(`"`+member+`":`+value), 1)
	}
	tokenizer, err := bpe.Read(bytes.NewReader(data))
	if err != nil {
		t.Fatal(err)
	}
	return tokenizer
}

// peer is an engine with a tokenizer of its own.
type peer struct {
	*httptest.Server
	calls     atomic.Int64
	tokenizer atomic.Pointer[bpe.Tokenizer]
}

func startPeer(t testing.TB, tokenizer *bpe.Tokenizer) *peer {
	t.Helper()
	p := &peer{}
	p.tokenizer.Store(tokenizer)
	p.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		p.calls.Add(1)
		var body struct {
			Prompt  string
			Special bool `json:"add_special_tokens"`
		}
		data, err := io.ReadAll(r.Body)
		if err != nil || json.Unmarshal(data, &body) != nil {
			w.WriteHeader(http.StatusBadRequest)
			return
		}
		ids := []uint32{1}
		if !strings.Contains(body.Prompt, "\U00031350") {
			ids = encode(t, p.tokenizer.Load(), body.Prompt, body.Special)
		}
		_ = json.NewEncoder(w).Encode(map[string]any{"count": len(ids), "tokens": ids})
	}))
	t.Cleanup(p.Close)
	return p
}

func encode(t testing.TB, tokenizer *bpe.Tokenizer, text string, special bool) []uint32 {
	t.Helper()
	ids, err := tokenizer.Append(nil, text)
	if err != nil {
		t.Error(err)
	}
	if special {
		before, after := tokenizer.Frame()
		ids = slices.Concat(before, ids, after)
	}
	return ids
}

// proven returns a source that has seen the peer agree.
func proven(t testing.TB, tokenizer *bpe.Tokenizer, o Options) (*Source, *peer) {
	t.Helper()
	p := startPeer(t, tokenizer)
	agreed := make(chan error, 1)
	o.Engines = func(string) []string { return []string{p.URL} }
	o.Tokenizers = map[string]*bpe.Tokenizer{"pool": tokenizer}
	o.Tried = func(_ string, err error) { agreed <- err }
	s := New(o)
	t.Cleanup(s.Close)
	s.Tokens(context.Background(), text("x"))
	if err := <-agreed; err != nil {
		t.Fatal(err)
	}
	return s, p
}

func TestAProvenTokenizerAsksNoEngine(t *testing.T) {
	for _, family := range []string{"gpt2", "qwen2", "llama"} {
		t.Run(family, func(t *testing.T) {
			tokenizer := small(t, family)
			s, p := proven(t, tokenizer, Options{})
			asked := p.calls.Load()
			for _, prompt := range []string{"katomi the extion\n<|im_end|> 中文", "e\u0301 'LL \"quoted\" \\ \u2028"} {
				check := func(r *scorerv1.ScoreRequest, special bool, origin Origin) {
					t.Helper()
					ids, from, err := s.Tokens(t.Context(), r)
					if want := encode(t, tokenizer, prompt, special); err != nil || from != origin || !slices.Equal(ids, want) {
						t.Fatalf("%v from %q, %v; want %v", ids, from, err, want)
					}
				}
				check(text(prompt), true, Local)
				check(text(prompt), true, Cache)
				quoted, _ := json.Marshal(prompt)
				check(completion("prompt", string(quoted), "add_special_tokens", "false"), false, Cache)
				check(completion("prompt", "["+string(quoted)+`,"other"]`, "add_special_tokens", "true"), true, Cache)
			}
			if n := p.calls.Load(); n != asked {
				t.Fatalf("%d calls of the engine", n-asked)
			}
		})
	}
}

// Turn N+1 of a conversation costs its new text: chunks of the old are looked up, and the ids are those of the whole.
func TestATurnCostsItsNewText(t *testing.T) {
	tokenizer := small(t, "qwen2")
	s, _ := proven(t, tokenizer, Options{})
	r := rand.New(rand.NewPCG(1, 2))
	conversation := ""
	for turn := range 40 {
		for range 300 {
			conversation += []string{" katomi", " the", "\n", "\n\n", " 中文，語", " '", "s", "  ", "1", "\t", "<|im_end|>\n", " \\", "é"}[r.IntN(13)]
		}
		before := s.cache.lru.Len()
		ids, _, err := s.Tokens(t.Context(), text(conversation))
		if want := encode(t, tokenizer, conversation, true); err != nil || !slices.Equal(ids, want) {
			t.Fatalf("turn %d: %v, %d ids, want %d", turn, err, len(ids), len(want))
		}
		if added := s.cache.lru.Len() - before; added > 3 {
			t.Fatalf("turn %d, of about 1,200 bytes, added %d chunks of %d bytes", turn, added, chunkBytes)
		}
	}
	if n := s.cache.lru.Len(); n < 20 {
		t.Fatalf("%d chunks: the conversation was not cut", n)
	}
}

func TestWhatATokenizerDoesNotDoIsAskedFor(t *testing.T) {
	s, p := proven(t, small(t, "qwen2"), Options{})
	requests := map[string]*scorerv1.ScoreRequest{
		"newer letters":      text("a \U00031350"),
		"half a surrogate":   completion("prompt", `"a \ud800 b"`),
		"no escape":          completion("prompt", `"a \x b"`),
		"control characters": completion("prompt", "\"a \x01 b\""),
		"no UTF-8":           completion("prompt", "\"a \xff b\""),
		"special not a bool": completion("prompt", `"a"`, "add_special_tokens", `"yes"`),
	}
	for name, r := range requests {
		asked := p.calls.Load()
		if _, origin, _ := s.Tokens(t.Context(), r); origin == Local || origin == Cache || p.calls.Load() == asked {
			t.Errorf("%s: from %q, %d calls", name, origin, p.calls.Load()-asked)
		}
	}
	asked := p.calls.Load()
	chat := &scorerv1.ScoreRequest{Pool: "pool", Kind: scorerv1.Kind_KIND_CHAT, Spans: []*scorerv1.Span{{Name: "messages", Value: []byte(`[{"role":"user","content":"a"}]`)}}}
	if _, origin, _ := s.Tokens(t.Context(), chat); origin == Local || p.calls.Load() == asked {
		t.Errorf("chat: from %q", origin)
	}
}

func TestADifferentFrameIsADifference(t *testing.T) {
	p := startPeer(t, small(t, "llama"))
	said := make(chan error, 1)
	s := New(Options{
		Engines:    func(string) []string { return []string{p.URL} },
		Tokenizers: map[string]*bpe.Tokenizer{"pool": small(t, "llama without a frame")},
		Tried:      func(_ string, err error) { said <- err },
	})
	t.Cleanup(s.Close)
	s.Tokens(t.Context(), text("x"))
	if err := <-said; !errors.Is(err, ErrDiffers) {
		t.Fatal(err)
	}
}

func TestATokenizerThatDiffersIsRefused(t *testing.T) {
	p := startPeer(t, small(t, "llama"))
	said := make(chan error, 8)
	s := New(Options{
		Engines:    func(string) []string { return []string{p.URL} },
		Tokenizers: map[string]*bpe.Tokenizer{"pool": small(t, "qwen2")},
		Tried:      func(_ string, err error) { said <- err },
		Timeout:    10 * time.Second,
	})
	t.Cleanup(s.Close)
	use := func(origin Origin) {
		t.Helper()
		prompt := fmt.Sprint("12345", p.calls.Load())
		ids, from, err := s.Tokens(t.Context(), text(prompt))
		if want := encode(t, p.tokenizer.Load(), prompt, true); err != nil || from != origin || !slices.Equal(ids, want) {
			t.Fatalf("%v from %q, %v; the engine has %v", ids, from, err, want)
		}
	}
	use(Tokenize)
	if err := <-said; !errors.Is(err, ErrDiffers) || strings.Contains(err.Error(), "fox") {
		t.Fatal(err)
	}
	use(Tokenize) // not tried again before its time
	p.tokenizer.Store(small(t, "qwen2"))
	due(s)
	use(Tokenize)
	if err := <-said; err != nil {
		t.Fatal(err)
	}
	use(Local)
	p.tokenizer.Store(small(t, "gpt2")) // the engine was started with another
	due(s)
	s.Tokens(t.Context(), text("x"))
	if err := <-said; !errors.Is(err, ErrDiffers) {
		t.Fatal(err)
	}
	use(Tokenize)
	if len(said) > 0 {
		t.Fatalf("said more than changed: %v", <-said)
	}
}

// due makes all trials due.
func due(s *Source) {
	s.local.trials.mu.Lock()
	defer s.local.trials.mu.Unlock()
	for _, of := range s.local.trials.trials {
		of.again = of.again.Add(-2 * trialEvery)
	}
}

// An engine that does not answer proves nothing, and another name of the pool is another trial.
func TestNothingIsProvenWithoutAnAnswer(t *testing.T) {
	gone := httptest.NewServer(nil)
	gone.Close()
	s := New(Options{
		Engines:    func(string) []string { return []string{gone.URL} },
		Tokenizers: map[string]*bpe.Tokenizer{"pool": small(t, "qwen2")},
		Tried:      func(_ string, err error) { t.Errorf("said %v", err) },
		Timeout:    10 * time.Second,
	})
	t.Cleanup(s.Close)
	wantUnknown(t, s, text("x"), Failed)
	for i := range 2 * maxTrials {
		if s.local.trials.proven("pool", fmt.Sprint(i)) != nil {
			t.Fatal("proven by nothing")
		}
	}
	until(t, func() bool {
		s.local.trials.mu.Lock()
		defer s.local.trials.mu.Unlock()
		for _, of := range s.local.trials.trials {
			if of.running || of.proven || of.differs {
				return false
			}
		}
		return len(s.local.trials.trials) == maxTrials
	})
}

func TestLocalWorkIsBoundedInTurnsAndTime(t *testing.T) {
	s, _ := proven(t, small(t, "qwen2"), Options{})
	for range cap(s.local.turns) {
		s.local.turns <- struct{}{}
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	_, _, err := s.Tokens(ctx, text("no turn"))
	if why := (*UnknownError)(nil); !errors.As(err, &why) || why.Reason != Busy {
		t.Fatal(err)
	}
	<-s.local.turns
	_, _, err = s.local.chunks(ctx, small(t, "qwen2"), "pool", nil, []byte("no time"))
	if why := (*UnknownError)(nil); !errors.As(err, &why) || why.Reason != Late && why.Reason != Busy {
		t.Fatal(err)
	}
}

// FuzzChunks: whatever the JSON string and its escapes, the chunks' ids are those of its text, or it is not done.
func FuzzChunks(f *testing.F) {
	pad := strings.Repeat("katomi ", chunkBytes/7)
	for _, tail := range []string{`the end`, `\n\n中文，語。\n`, `\\\\\\n a`, `\u4e2d\u3002\u8a9e a`, `\ud83d\ude00 x`, `\ud83d x`, `a\`, `"`, "\xff b", `é\u0301 b`} {
		f.Add([]byte(tail), uint8(0))
		f.Add([]byte(pad+tail+tail+" "+pad), uint8(3))
	}
	for shift := range uint8(12) {
		f.Add([]byte(`\\\n\n\na`+pad), shift) // an even and an odd number of them, wherever the search for a cut begins
		f.Add([]byte(`\\\\n\n\n\na`+pad), shift)
		f.Add([]byte(`語\u8a9e\u3002中、\n  a`+pad), shift)
	}
	var families []*bpe.Tokenizer
	for _, family := range []string{"gpt2", "qwen2", "llama"} {
		families = append(families, small(f, family))
	}
	f.Fuzz(func(t *testing.T, inside []byte, shift uint8) {
		raw := append(bytes.Repeat([]byte("a!"), chunkBytes/2)[shift:], inside...)
		if !json.Valid(slices.Concat([]byte{'"'}, raw, []byte{'"'})) {
			return
		}
		whole, err := unquote(raw)
		if err != nil {
			return
		}
		for _, tokenizer := range families {
			want, err := tokenizer.Append(nil, whole)
			if err != nil {
				return
			}
			var got []uint32
			for rest := raw; len(rest) > 0; {
				n := chunkEnd(rest)
				if longer := append(slices.Clone(rest), "  more"...); n < len(rest) && chunkEnd(longer) != n {
					t.Fatalf("the end of a chunk depends on what comes later: %q", rest)
				}
				chunk, err := unquote(rest[:n])
				if err != nil {
					t.Fatalf("a chunk of good text is bad: %q", rest[:n])
				}
				got, _ = tokenizer.Append(got, chunk)
				rest = rest[n:]
			}
			if !slices.Equal(got, want) {
				t.Fatalf("%q: %v, whole %v", raw, got, want)
			}
		}
	})
}
