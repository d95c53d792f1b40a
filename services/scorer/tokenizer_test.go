package scorer_test

import (
	"bytes"
	"encoding/json"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/warmpath/warmpath/libs/fleet"
	scorerv1 "github.com/warmpath/warmpath/proto/warmpath/scorer/v1"
	"github.com/warmpath/warmpath/services/scorer"
	"github.com/warmpath/warmpath/services/scorer/internal/bpe"
)

// tokenizerFile writes a small tokenizer of GPT-2's kind and returns its folder.
func tokenizerFile(t *testing.T) string {
	t.Helper()
	data, err := os.ReadFile("internal/bpe/testdata/small.json")
	if err != nil {
		t.Fatal(err)
	}
	data = bytes.Replace(data, []byte(`"pre_tokenizer":null`), []byte(`"pre_tokenizer":{"type":"ByteLevel","add_prefix_space":false}`), 1)
	folder := t.TempDir()
	if err := os.WriteFile(filepath.Join(folder, "tokenizer.json"), data, 0o600); err != nil {
		t.Fatal(err)
	}
	return folder
}

func TestATokenizerIsUsedOnceTheEngineAgrees(t *testing.T) {
	folder := tokenizerFile(t)
	w := newWorld(t, scorer.Tokenizer{Model: "m/One", Path: folder})
	tokenizer, err := bpe.Load(folder)
	w.must(err)
	engine := httptest.NewServer(http.HandlerFunc(func(out http.ResponseWriter, r *http.Request) {
		var body struct{ Prompt string }
		data, _ := io.ReadAll(r.Body)
		_ = json.Unmarshal(data, &body)
		ids, _ := tokenizer.Append(nil, body.Prompt)
		_ = json.NewEncoder(out).Encode(map[string]any{"count": len(ids), "tokens": ids})
	}))
	t.Cleanup(engine.Close)
	w.must(fleet.PutEngine(w.Context(), w.conn, fleet.Engine{
		ID: "e", Pool: w.pool.ID, URL: engine.URL, Role: fleet.Both, Ranks: 1, BlockSize: blockSize, State: fleet.OK,
	}))
	first := w.until(w.completion(`"katomi the extion"`), whole)
	here := w.until(w.completion(`"katomi the extion"`), func(r *scorerv1.ScoreResponse) bool {
		return r.GetSource() == "local"
	})
	if first.GetSource() != "tokenize" || here.GetPromptTokens() != first.GetPromptTokens() {
		t.Fatalf("%v, then %v", first, here)
	}
	if !strings.Contains(w.log.String(), "tokenizer agrees") {
		t.Fatal(w.log.String())
	}
}

// The engine of world has bytes for tokens: it keeps tokenizing, and the log says so, once.
func TestATokenizerThatIsNotTheEnginesIsRefused(t *testing.T) {
	w := newWorld(t, scorer.Tokenizer{Model: "m/One", Path: tokenizerFile(t)})
	w.startEngine()
	w.until(w.completion(`"`+secret+`"`), whole)
	eventually(t, func() bool { return strings.Contains(w.log.String(), "tokenizer is refused") })
	if r := w.score(w.completion(`"another prompt"`)); r.GetSource() != "tokenize" || int(r.GetPromptTokens()) != len("another prompt") {
		t.Fatalf("got %v", r)
	}
	if n := strings.Count(w.log.String(), "tokenizer is refused"); n != 1 {
		t.Fatalf("said %d times: %s", n, w.log.String())
	}
	w.checkSilence()
}

func TestAFileThatIsNotDoneStopsTheScorer(t *testing.T) {
	for path, says := range map[string]string{
		"internal/bpe/testdata/small.json": "pre_tokenizer",
		"internal/bpe/testdata":            "no such file",
	} {
		err := scorer.Run(t.Context(), scorer.Config{
			NATS: "nats://127.0.0.1:1", Log: slog.New(slog.DiscardHandler), Tokenizers: []scorer.Tokenizer{{Model: "m", Path: path}},
		})
		if err == nil || !strings.Contains(err.Error(), says) || !strings.Contains(err.Error(), "tokenizer of m") {
			t.Errorf("%s: %v", path, err)
		}
	}
	for _, value := range []string{"", "model", "=path", "model="} {
		if _, err := scorer.ParseTokenizer(value); err == nil {
			t.Errorf("%q is taken", value)
		}
	}
	if got, err := scorer.ParseTokenizer("m/One=/a=b"); err != nil || got != (scorer.Tokenizer{Model: "m/One", Path: "/a=b"}) {
		t.Errorf("%v, %v", got, err)
	}
}
