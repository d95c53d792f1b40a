package openai

import (
	"errors"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"
)

const (
	chunkA = `data: {"id":"c","choices":[{"index":0,"delta":{"content":"say \"usage\":{} and \"choices\":[]"}}]}` + "\n\n"
	chunkB = `data: {"id":"c","choices":[{"index":0,"delta":{"content":"b"}}],"usage":null}` + "\n\n"
	extra  = `data: {"id":"c","choices":[],"usage":{"prompt_tokens":11,"total_tokens":13,"completion_tokens":2,` +
		`"prompt_tokens_details":{"cached_tokens":8}}}` + "\n\n"
	done = "data: [DONE]\n\n"
)

func feed(t *testing.T, s *Stream, input string, cut func(left int) int) string {
	t.Helper()
	var out strings.Builder
	emit := func(p []byte) error { out.Write(p); return nil }
	for len(input) > 0 {
		n := min(max(1, cut(len(input))), len(input))
		if err := s.Feed([]byte(input[:n]), emit); err != nil {
			t.Fatal(err)
		}
		input = input[n:]
	}
	if err := s.Flush(emit); err != nil {
		t.Fatal(err)
	}
	return out.String()
}

func TestStreamWithholdsTheUsageChunkHoweverItIsCut(t *testing.T) {
	r := rand.New(rand.NewPCG(3, 4))
	for _, crlf := range []bool{false, true} {
		input, want := ": ping\n\n"+chunkA+chunkB+extra+done, ": ping\n\n"+chunkA+chunkB+done
		if crlf {
			input, want = strings.ReplaceAll(input, "\n", "\r\n"), strings.ReplaceAll(want, "\n", "\r\n")
		}
		cuts := map[string]func(int) int{
			"whole":  func(n int) int { return n },
			"bytes":  func(int) int { return 1 },
			"random": func(int) int { return r.IntN(40) },
		}
		for k := range len(input) {
			first := true
			cuts["at "+input[:k]] = func(left int) int {
				if first && k > 0 {
					first = false
					return k
				}
				return left
			}
		}
		for name, cut := range cuts {
			s := Stream{Withhold: true}
			if got := feed(t, &s, input, cut); got != want {
				t.Fatalf("cut %s: passed %q", name, got)
			}
			if !s.HasUsage || s.Usage != (Usage{11, 2, 8, true}) || !s.Done || s.Failed || s.Chunks != 2 {
				t.Fatalf("cut %s: %+v", name, s)
			}
		}
	}
}

func TestStreamPassesUsageThatTheClientAskedFor(t *testing.T) {
	continuous := `data: {"choices":[{"text":"x"}],"usage":{"prompt_tokens":5,"completion_tokens":1}}` + "\n\n"
	var s Stream
	if got := feed(t, &s, continuous+extra+done, func(n int) int { return n }); got != continuous+extra+done {
		t.Fatalf("passed %q", got)
	}
	if s.Usage.Prompt != 11 || s.Chunks != 1 {
		t.Fatalf("%+v", s)
	}
	s = Stream{Withhold: true}
	if got := feed(t, &s, continuous, func(n int) int { return 3 }); got != continuous || s.Usage.HasCached || s.Usage.Completion != 1 {
		t.Fatalf("passed %q, %+v", got, s)
	}
}

func TestStreamPassesWhatItCannotRead(t *testing.T) {
	for _, input := range []string{
		"data: {\"usage\": broken}\n\n" + done,
		"data: {\"error\":{\"message\":\"x\"}}\n\n",
		"event: response.created\ndata: {\"usage\":{}}\n\n",
		"no events at all", "\n\n\n\n", "data: unfinished",
		"data: " + strings.Repeat("y", 3*maxHeld) + "\n\n" + chunkA + done,
	} {
		for _, n := range []int{1, 1000, 1 << 20} {
			s := Stream{Withhold: true}
			if got := feed(t, &s, input, func(int) int { return n }); got != input {
				t.Errorf("changed %.40q of %d bytes, read by %d", input, len(input), n)
			}
			if strings.Contains(input, `"error"`) != s.Failed {
				t.Errorf("failed is %v for %.40q", s.Failed, input)
			}
			if cap(s.held) > 3*maxHeld {
				t.Errorf("holds %d bytes", cap(s.held))
			}
		}
	}
}

func TestStreamReturnsTheWritersError(t *testing.T) {
	gone := errors.New("gone")
	var s Stream
	if err := s.Feed([]byte(chunkA), func([]byte) error { return gone }); !errors.Is(err, gone) {
		t.Fatal(err)
	}
}

func FuzzStream(f *testing.F) {
	f.Add(chunkA+extra+done, uint64(1))
	f.Add("\r\n\r\n"+extra+"\n"+extra, uint64(2))
	f.Fuzz(func(t *testing.T, input string, seed uint64) {
		r := rand.New(rand.NewPCG(seed, 0))
		var once, cut Stream
		once.Withhold, cut.Withhold = true, true
		a := feed(t, &once, input, func(n int) int { return n })
		b := feed(t, &cut, input, func(int) int { return r.IntN(9) })
		if a != b && len(input) < maxHeld {
			t.Fatalf("whole %q, cut %q", a, b)
		}
		if !once.HasUsage && a != input {
			t.Fatalf("%q became %q", input, a)
		}
	})
}

func TestErrorIsTheAPIsObject(t *testing.T) {
	w := httptest.NewRecorder()
	e := &Error{Status: http.StatusServiceUnavailable, Message: `no "engine"`, Code: "no_engine", RetryAfter: 1500 * time.Millisecond}
	e.Write(w)
	want := `{"error":{"message":"no \"engine\"","type":"service_unavailable_error","param":null,"code":"no_engine"}}`
	if w.Body.String() != want || w.Code != 503 || w.Header().Get("Retry-After") != "2" {
		t.Fatalf("%d %v %s", w.Code, w.Header(), w.Body)
	}
	if got := string((&Error{Status: 404, Message: "m", Param: "model"}).Event()); got !=
		`data: {"error":{"message":"m","type":"invalid_request_error","param":"model","code":null}}`+"\n\n" {
		t.Fatal(got)
	}
}

func BenchmarkStream(b *testing.B) {
	p := []byte(chunkB)
	var s Stream
	for b.Loop() {
		if s.Feed(p, func([]byte) error { return nil }) != nil {
			b.Fatal()
		}
	}
}

func TestUsageThatCannotBeTrueIsNotRead(t *testing.T) {
	for raw, want := range map[string]*Usage{
		`{"prompt_tokens":7,"completion_tokens":5,"prompt_tokens_details":{"cached_tokens":7}}`:  {Prompt: 7, Completion: 5, Cached: 7, HasCached: true},
		`{"prompt_tokens":7,"completion_tokens":5,"prompt_tokens_details":{"cached_tokens":8}}`:  {Prompt: 7, Completion: 5},
		`{"prompt_tokens":7,"completion_tokens":5,"prompt_tokens_details":{"cached_tokens":-1}}`: {Prompt: 7, Completion: 5},
		`{"prompt_tokens":-7,"completion_tokens":5}`:                                             nil,
		`{"prompt_tokens":7,"completion_tokens":-1}`:                                             nil,
		`{"prompt_tokens":7,"completion_tokens":9223372036854775807}`:                            nil,
	} {
		var b Body
		if err := b.Scan([]byte(`{"usage":` + raw + `}`)); err != nil {
			t.Fatal(err)
		}
		if got, ok := ReadUsage(&b); ok != (want != nil) || ok && *got != *want {
			t.Errorf("%s: %+v, %v", raw, got, ok)
		}
	}
}
