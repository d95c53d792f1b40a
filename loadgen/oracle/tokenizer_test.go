package oracle

import (
	"fmt"
	"math/rand/v2"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/warmpath/warmpath/loadgen/enginesim"
	"github.com/warmpath/warmpath/services/scorer"
)

// said is a log that can be searched while it is written.
type said struct {
	mu   sync.Mutex
	text strings.Builder
}

func (s *said) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.text.Write(p)
}

func (s *said) has(text string) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return strings.Contains(s.text.String(), text)
}

// phrases are texts of which each extends the one before: words, digits, code, other scripts, added tokens.
func phrases(n int) (all []string) {
	s := source{rand.New(rand.NewPCG(11, 1))}
	pieces := []string{
		"katomi the extion", " it's we'll", "  12345", "\n\tfor i := 0;", " 中文 é😀", "<|im_start|>user\n", "<|im_end|>\n", "[later]", "   ", "<tool>",
	}
	text := ""
	for len(all) < n {
		for range 4 {
			text += pieces[s.IntN(len(pieces))] + s.words(1+s.IntN(9))
		}
		all = append(all, text)
	}
	return all
}

// complete sends a completion, and waits until the index has heard of all that it did.
func (w *world) complete(id, text string, tokens []uint32) {
	w.t.Helper()
	r := request{path: "/v1/completions", body: map[string]any{"prompt": text}, Prompt: Prompt{Tokens: tokens}}
	if _, err := w.ask(id, r, 4, true); err != nil {
		w.t.Fatal(err)
	}
	if lines := w.settle(deadline); len(lines) > 0 {
		w.t.Fatalf("after %s: %s", id, lines[0])
	}
}

// A tokenizer that is the engines' takes their place for completions, and its tokens are those that they cache.
func TestALocalTokenizerIsTheEngines(t *testing.T) {
	folder, theirs := writeTokenizer(t)
	w := setup{
		engines: 1, tokenizers: []scorer.Tokenizer{{Model: model, Path: folder}},
		engine: func(_ int, o *enginesim.Options) { o.Tokenize = theirs.encode },
	}.start(t)
	n := 0
	for give := time.Now().Add(deadline); w.counted("warmpath_scorer_scores_total", "source", "local") == 0; n++ {
		if time.Now().After(give) {
			t.Fatal("the tokenizer was never used")
		}
		text := fmt.Sprint("katomi ", n)
		w.complete(fmt.Sprint("first-", n), text, theirs.encode(nil, text))
	}
	asked := w.counted("warmpath_scorer_scores_total", "source", "tokenize")
	for i, text := range phrases(12) {
		w.complete(fmt.Sprint("then-", i), text, theirs.encode(nil, text))
		n++
	}
	_, records := w.history(n)
	judged, found := w.judge(records)
	if lines := w.misread(records); len(lines) > 0 {
		t.Fatal(lines[0])
	}
	if judged < n/4 || found == 0 || w.counted("warmpath_scorer_scores_total", "source", "tokenize") != asked {
		t.Fatalf("of %d requests %d were scored, %d tokens found; engines tokenized after their tokenizer was known", n, judged, found)
	}
}

// One that is not is refused loudly, and the engines go on to tokenize.
func TestATokenizerOfAnotherModelIsRefused(t *testing.T) {
	folder, _ := writeTokenizer(t)
	log := new(said)
	w := setup{engines: 1, tokenizers: []scorer.Tokenizer{{Model: model, Path: folder}}, log: log}.start(t)
	n, all := 0, phrases(6)
	for give := time.Now().Add(deadline); !log.has("tokenizer is refused") || n < len(all); n++ {
		if time.Now().After(give) {
			t.Fatal("the log does not say that the tokenizer is refused")
		}
		w.complete(fmt.Sprint("request-", n), all[n%len(all)], enginesim.Tokenize(nil, all[n%len(all)]))
	}
	_, records := w.history(n)
	if lines := w.misread(records); len(lines) > 0 {
		t.Fatal(lines[0])
	}
	if judged, found := w.judge(records); judged < n/4 || found == 0 || w.counted("warmpath_scorer_scores_total", "source", "local") != 0 {
		t.Fatalf("of %d requests %d were scored, %d tokens found in caches", n, judged, found)
	}
}
