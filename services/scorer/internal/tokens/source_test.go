package tokens

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	scorerv1 "github.com/warmpath/warmpath/proto/warmpath/scorer/v1"
)

// engine is a tokenizer whose tokens are the bytes of the prompt.
type engine struct {
	*httptest.Server
	calls  atomic.Int64
	answer func(w http.ResponseWriter, prompt string)
}

func startEngine(t *testing.T, answer func(http.ResponseWriter, string)) *engine {
	t.Helper()
	e := &engine{answer: answer}
	e.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		e.calls.Add(1)
		var body struct{ Prompt string }
		data, err := io.ReadAll(r.Body)
		if err != nil || r.URL.Path != "/tokenize" || json.Unmarshal(data, &body) != nil {
			t.Errorf("got %s with %q, %v", r.URL.Path, data, err)
		}
		if e.answer == nil {
			tokenize(w, body.Prompt)
			return
		}
		e.answer(w, body.Prompt)
	}))
	t.Cleanup(e.Close)
	return e
}

func tokenize(w io.Writer, prompt string) {
	ids := make([]int, len(prompt))
	for i := range prompt {
		ids[i] = int(prompt[i])
	}
	_ = json.NewEncoder(w).Encode(map[string]any{"count": len(ids), "max_model_len": 99, "tokens": ids, "token_strs": nil})
}

func source(t *testing.T, o Options, engines ...*engine) *Source {
	t.Helper()
	o.Engines = func(pool string) []string {
		if pool != "pool" {
			t.Errorf("asked for engines of %q", pool)
		}
		var urls []string
		for _, e := range engines {
			urls = append(urls, e.URL)
		}
		return urls
	}
	if o.Timeout == 0 {
		o.Timeout = 10 * time.Second
	}
	s := New(o)
	t.Cleanup(s.Close)
	return s
}

func text(prompt string) *scorerv1.ScoreRequest {
	value, _ := json.Marshal(prompt)
	return completion("prompt", string(value))
}

func want(t *testing.T, s *Source, r *scorerv1.ScoreRequest, ids string, origin Origin) {
	t.Helper()
	got, from, err := s.Tokens(t.Context(), r)
	expected := make([]uint32, len(ids))
	for i := range ids {
		expected[i] = uint32(ids[i])
	}
	if err != nil || from != origin || !slices.Equal(got, expected) {
		t.Fatalf("got %v from %q, %v; want %v from %q", got, from, err, expected, origin)
	}
}

func wantUnknown(t *testing.T, s *Source, r *scorerv1.ScoreRequest, reason Reason) error {
	t.Helper()
	ids, origin, err := s.Tokens(t.Context(), r)
	var why *UnknownError
	if !errors.As(err, &why) || why.Reason != reason || ids != nil || origin != "" {
		t.Fatalf("got %v from %q, %v; want %q", ids, origin, err, reason)
	}
	return err
}

func TestEachPromptIsAskedForOnce(t *testing.T) {
	e := startEngine(t, nil)
	s := source(t, Options{}, e)
	want(t, s, text("abc"), "abc", Tokenize)
	want(t, s, text("abc"), "abc", Cache)
	other := text("abc")
	other.Model = "adapter"
	want(t, s, other, "abc", Tokenize)
	special := text("abc")
	special.Spans = append(special.Spans, &scorerv1.Span{Name: "add_special_tokens", Value: []byte("false")})
	want(t, s, special, "abc", Tokenize)
	want(t, s, completion("prompt", `[97,98]`), "ab", IDs)
	if n := e.calls.Load(); n != 3 {
		t.Fatalf("%d calls, want 3", n)
	}
}

func TestEqualPromptsShareOneCall(t *testing.T) {
	release := make(chan struct{})
	e := startEngine(t, func(w http.ResponseWriter, prompt string) {
		<-release
		tokenize(w, prompt)
	})
	s := source(t, Options{}, e)
	// The one who began the call gives up; those who joined still get its answer.
	ctx, giveUp := context.WithCancel(t.Context())
	first := make(chan error, 1)
	go func() {
		_, _, err := s.Tokens(ctx, text("same"))
		first <- err
	}()
	until(t, func() bool { return e.calls.Load() == 1 })
	var wg sync.WaitGroup
	for range 20 {
		wg.Go(func() {
			ids, _, err := s.Tokens(t.Context(), text("same"))
			if err != nil || len(ids) != 4 {
				t.Errorf("got %v, %v", ids, err)
			}
		})
	}
	giveUp()
	if why := (*UnknownError)(nil); !errors.As(<-first, &why) || why.Reason != Late {
		t.Errorf("the first got %v", why)
	}
	close(release)
	wg.Wait()
	if n := e.calls.Load(); n != 1 {
		t.Fatalf("%d calls, want 1", n)
	}
}

func TestAnswersThatMakeNoSense(t *testing.T) {
	const secret = "the prompt itself"
	cases := map[string]string{
		"empty":          ``,
		"no tokens":      `{"count":0,"tokens":[]}`,
		"other count":    `{"count":3,"tokens":[1,2]}`,
		"floats":         `{"count":1,"tokens":[1.0]}`,
		"negative":       `{"tokens":[-1]}`,
		"strings":        `{"tokens":["1"]}`,
		"cut":            `{"count":3,"tokens":[1,2`,
		"trailing":       `{"tokens":[1]}{"tokens":[1]}`,
		"a page":         `<html>` + secret + `</html>`,
		"a list":         `[1,2,3]`,
		"an error":       `{"error":{"message":"` + secret + `"}}`,
		"2^31":           `{"tokens":[2147483648]}`,
		"endless number": `{"tokens":[` + strings.Repeat("1", 1<<16) + `]}`,
		"too long":       `{"tokens":[1]` + strings.Repeat(" ", 2<<20) + `}`,
	}
	for name, answer := range cases {
		t.Run(name, func(t *testing.T) {
			e := startEngine(t, func(w http.ResponseWriter, _ string) { _, _ = io.WriteString(w, answer) })
			s := source(t, Options{}, e)
			err := wantUnknown(t, s, text(secret), Failed)
			if strings.Contains(err.Error(), secret) {
				t.Fatalf("the error quotes the answer: %v", err)
			}
			wantUnknown(t, s, text(secret), Failed)
			if n := e.calls.Load(); n != 2 {
				t.Fatalf("%d calls, want 2: failures are not kept", n)
			}
		})
	}
}

func TestAnotherEngineIsAskedAfterAFailure(t *testing.T) {
	broken := startEngine(t, func(w http.ResponseWriter, _ string) { w.WriteHeader(http.StatusInternalServerError) })
	works := startEngine(t, nil)
	var reports []string
	s := source(t, Options{Report: func(url string, err error) {
		reports = append(reports, fmt.Sprintf("broken:%v failing:%v", url == broken.URL, err != nil))
	}},
		broken, works)
	for i := range 4 * reportAfter {
		prompt := fmt.Sprint("prompt ", i)
		want(t, s, text(prompt), prompt, Tokenize)
	}
	broken.answer = func(w http.ResponseWriter, prompt string) { tokenize(w, prompt) }
	for i := range 4 {
		prompt := fmt.Sprint("later ", i)
		want(t, s, text(prompt), prompt, Tokenize)
	}
	if want := []string{"broken:true failing:true", "broken:true failing:false"}; !slices.Equal(reports, want) {
		t.Fatalf("reports %v, want %v", reports, want)
	}
}

func TestARefusedPromptIsNotAskedForElsewhere(t *testing.T) {
	refuse := func(w http.ResponseWriter, prompt string) { http.Error(w, prompt, http.StatusBadRequest) }
	a, b := startEngine(t, refuse), startEngine(t, refuse)
	s := source(t, Options{Report: func(string, error) { t.Error("a client's bad prompt is no failure of an engine") }}, a, b)
	for i := range 2 * reportAfter {
		err := wantUnknown(t, s, text("secret"), Refused)
		if strings.Contains(err.Error(), "secret") {
			t.Fatal(err)
		}
		if n := a.calls.Load() + b.calls.Load(); n != int64(i+1) {
			t.Fatalf("%d calls for %d prompts", n, i+1)
		}
	}
}

func TestNobodyWaitsForASlowEngine(t *testing.T) {
	release := make(chan struct{})
	e := startEngine(t, func(http.ResponseWriter, string) { <-release })
	t.Cleanup(func() { close(release) })
	s := source(t, Options{Timeout: 20 * time.Millisecond, Concurrency: 1}, e)
	begun := time.Now()
	wantUnknown(t, s, text("slow"), Late)
	if took := time.Since(begun); took < 20*time.Millisecond || took > 5*time.Second {
		t.Fatalf("waited %v", took)
	}
	if got := s.deadline(100_000); got != 30*time.Millisecond {
		t.Fatalf("deadline for 100 KB is %v, want 30 ms", got)
	}
}

func TestTurnsAreBounded(t *testing.T) {
	release := make(chan struct{})
	e := startEngine(t, func(w http.ResponseWriter, prompt string) {
		<-release
		tokenize(w, prompt)
	})
	s := source(t, Options{Concurrency: 2}, e)
	var wg sync.WaitGroup
	for i := range 2 {
		wg.Go(func() { want(t, s, text(fmt.Sprint("p", i)), fmt.Sprint("p", i), Tokenize) })
	}
	until(t, func() bool { return e.calls.Load() == 2 })
	s.timeout = 10 * time.Millisecond
	wantUnknown(t, s, text("third"), Busy)
	close(release)
	wg.Wait()
}

func TestNoEngine(t *testing.T) {
	wantUnknown(t, source(t, Options{}), text("x"), NoEngine)
	gone := startEngine(t, nil)
	gone.Close()
	wantUnknown(t, source(t, Options{}, gone), text("x"), Failed)
}

func TestARedirectIsNotFollowed(t *testing.T) {
	e := startEngine(t, func(w http.ResponseWriter, _ string) {
		w.Header().Set("Location", "http://127.0.0.1:1/")
		w.WriteHeader(http.StatusTemporaryRedirect)
	})
	wantUnknown(t, source(t, Options{}, e), text("x"), Failed)
}

func TestTheCacheIsBoundedInBytes(t *testing.T) {
	e := startEngine(t, nil)
	const limit = 4096
	s := source(t, Options{CacheBytes: limit}, e)
	for i := range 100 {
		s.Tokens(t.Context(), text(strings.Repeat("x", i*7%200)+fmt.Sprint(i)))
		if got := s.CacheBytes(); got > limit {
			t.Fatalf("cache holds %d bytes after %d prompts", got, i)
		}
	}
	last := text(strings.Repeat("x", 99*7%200) + "99")
	if _, origin, err := s.Tokens(t.Context(), last); origin != Cache {
		t.Fatalf("the newest is from %q, %v", origin, err)
	}
	before := s.CacheBytes()
	big := text(strings.Repeat("y", limit))
	for range 2 {
		if _, origin, err := s.Tokens(t.Context(), big); origin != Tokenize {
			t.Fatalf("a prompt larger than the cache is from %q, %v", origin, err)
		}
	}
	if s.CacheBytes() != before {
		t.Fatalf("cache went from %d to %d bytes", before, s.CacheBytes())
	}
}

// The bytes counted are those of the entries held, whatever was put and dropped.
func TestTheCacheCountsItsBytes(t *testing.T) {
	c := newCache(2000)
	for i := range uint64(1000) {
		c.put(digest{Lo: i * i % 17}, make([]uint32, i*31%90))
		held := int64(0)
		for _, ids := range c.lru.Values() {
			held += weigh(ids)
		}
		if held != c.size() || held > 2000 {
			t.Fatalf("step %d: counts %d bytes, holds %d", i, c.size(), held)
		}
	}
}

func until(t *testing.T, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(10 * time.Second); !ok(); time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal("did not happen in 10 s")
		}
	}
}
