package tokens

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	scorerv1 "github.com/warmpath/warmpath/proto/warmpath/scorer/v1"
	"github.com/warmpath/warmpath/services/scorer/internal/bpe"
)

// ErrDiffers is wrapped by the error of a tokenizer that an engine does not agree with.
var ErrDiffers = errors.New("tokenizer differs from the engine's")

// asker asks an engine of a pool for the ids of a prompt.
type asker func(ctx context.Context, r *scorerv1.ScoreRequest) ([]uint32, error)

const (
	trialTime = 10 * time.Second
	// Every so often an engine is asked again: it may have been started anew with another revision of its tokenizer.
	trialEvery = 10 * time.Minute
	retryAfter = time.Second // where no engine answered
	maxTrials  = 1024        // names of models that are kept
)

// trials lets a tokenizer be used for a model when an engine was seen to agree with it on a few texts that are hard.
// Methods may be called from any goroutine.
type trials struct {
	tokenizers map[string]*bpe.Tokenizer // by pool
	ask        asker
	now        func() time.Time
	report     func(model string, err error)

	mu     sync.Mutex
	trials map[name]*trial
}

// name is one of a pool: an adapter may bring a tokenizer of its own.
type name struct{ pool, model string }

type trial struct {
	running bool
	proven  bool
	differs bool
	again   time.Time // when to try again
}

func newTrials(o Options, ask asker) *trials {
	t := &trials{tokenizers: o.Tokenizers, ask: ask, now: time.Now, report: o.Tried, trials: make(map[name]*trial)}
	if t.report == nil {
		t.report = func(string, error) {}
	}
	return t
}

// proven returns the tokenizer of a model, or nil as long as no engine has agreed with it. It waits for nobody: a trial
// that is due begins in the background.
func (t *trials) proven(pool, model string) *bpe.Tokenizer {
	tokenizer := t.tokenizers[pool]
	if tokenizer == nil {
		return nil
	}
	key := name{pool, model}
	t.mu.Lock()
	defer t.mu.Unlock()
	of := t.trials[key]
	if of == nil {
		if len(t.trials) >= maxTrials {
			return nil
		}
		of = &trial{}
		t.trials[key] = of
	}
	if !of.running && !t.now().Before(of.again) {
		of.running = true
		go t.hold(of, key, tokenizer)
	}
	if !of.proven {
		return nil
	}
	return tokenizer
}

// hold holds one trial and says what came out of it where that is news.
func (t *trials) hold(of *trial, key name, tokenizer *bpe.Tokenizer) {
	ctx, cancel := context.WithTimeout(context.Background(), trialTime)
	defer cancel()
	err := t.compare(ctx, key, tokenizer)
	differs := errors.Is(err, ErrDiffers)
	t.mu.Lock()
	news := err == nil && !of.proven || differs && !of.differs
	of.running = false
	switch {
	case err == nil:
		of.proven, of.differs = true, false
	case differs:
		of.proven, of.differs = false, true
	}
	of.again = t.now().Add(trialEvery)
	if err != nil && !differs { // nothing was learned
		of.again = t.now().Add(retryAfter)
	}
	t.mu.Unlock()
	if news {
		t.report(key.model, err)
	}
}

func (t *trials) compare(ctx context.Context, key name, tokenizer *bpe.Tokenizer) error {
	before, after := tokenizer.Frame()
	for i, text := range texts(tokenizer) {
		ours, err := tokenizer.Append(nil, text)
		if err != nil {
			return fmt.Errorf("encode text %d: %w", i, err)
		}
		for _, framed := range []bool{true, false} {
			want := ours
			if framed {
				want = slices.Concat(before, ours, after)
			}
			theirs, err := t.ask(ctx, textRequest(key, text, framed))
			if err != nil {
				return err
			}
			if !slices.Equal(want, theirs) {
				return fmt.Errorf("%w on text %d of the trial, special tokens %t: %d ids, the engine has %d",
					ErrDiffers, i, framed, len(want), len(theirs))
			}
		}
	}
	return nil
}

func textRequest(key name, text string, special bool) *scorerv1.ScoreRequest {
	quoted, _ := json.Marshal(text) // a string: cannot fail
	return &scorerv1.ScoreRequest{
		Pool: key.pool, Model: key.model, Kind: scorerv1.Kind_KIND_COMPLETIONS,
		Spans: []*scorerv1.Span{
			{Name: "prompt", Value: quoted},
			{Name: "add_special_tokens", Value: fmt.Append(nil, special)},
		},
	}
}

// texts are what a trial compares: each kind of text that tokenizers of one family do differently, and every added token.
func texts(tokenizer *bpe.Tokenizer) []string {
	all := []string{
		"The quick brown fox, 12345 times; it's we'LL don't\tI'VE  2.50!\n\n  end of line  \n",
		"func main() {\n\tfor i := 0; i < 1000; i++ {\n\t\tprintln(x[i]) // ...\n\t}\n}\r\n\r\n",
		"中文测试，日本語のテスト。한국어 ไทย हिन्दी العربية Ελληνικά ٣٤٥ ½ 😀👩‍👩‍👧🇩🇪",
		"e\u0301 \u1112\u1161\u11ab \u212b が か\u3099 \u00a0\u3000\u2028 a\u0085b \ufeff 'ſ",
	}
	if added := tokenizer.Added(); len(added) > 0 {
		all = append(all, strings.Join(added, " x")+strings.Join(added, ""))
	}
	return all
}
