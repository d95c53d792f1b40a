package tokens

import (
	"context"
	"runtime"

	"github.com/zeebo/xxh3"

	scorerv1 "github.com/warmpath/warmpath/proto/warmpath/scorer/v1"
	"github.com/warmpath/warmpath/services/scorer/internal/bpe"
)

// local tokenizes here, with the tokenizers that engines were seen to agree with.
type local struct {
	seed   uint64
	cache  *cache
	trials *trials
	turns  chan struct{} // as many as there are processors
}

func newLocal(o Options, cache *cache, ask asker) *local {
	return &local{
		seed: o.Seed, cache: cache, trials: newTrials(o, ask), turns: make(chan struct{}, runtime.GOMAXPROCS(0)),
	}
}

// tokens returns the ids of a prompt. ok is false where an engine must be asked: for chat, whose template only engines
// have, for pools without a tokenizer that is proven, and for texts that it does not do exactly.
func (l *local) tokens(ctx context.Context, r *scorerv1.ScoreRequest, p *prompt) (ids []uint32, origin Origin, ok bool, why error) {
	if r.GetKind() != scorerv1.Kind_KIND_COMPLETIONS {
		return nil, "", false, nil
	}
	framed, plain := special(p)
	tokenizer := l.trials.proven(r.GetPool(), r.GetModel())
	if tokenizer == nil || !plain {
		return nil, "", false, nil
	}
	raw := p.text[1 : len(p.text)-1]
	var after []uint32
	ids = make([]uint32, 0, len(raw)/3+16)
	if framed {
		before, last := tokenizer.Frame()
		ids, after = append(ids, before...), last
	}
	ids, origin, err := l.chunks(ctx, tokenizer, r.GetPool(), ids, raw)
	switch {
	case ctx.Err() != nil && err != nil:
		return nil, "", true, err
	case err != nil:
		return nil, "", false, nil
	}
	return append(ids, after...), origin, true, nil
}

// special says whether special tokens are asked for, and whether that is said as it should be.
func special(p *prompt) (wanted, plain bool) {
	for _, span := range p.rest { // the only one that may be there
		value := string(span.GetValue())
		return value == "true", value == "true" || value == "false"
	}
	return true, true
}

// chunks appends the ids of the inside of a JSON string. Chunks that it has met in any prompt cost a look-up.
func (l *local) chunks(ctx context.Context, t *bpe.Tokenizer, pool string, ids []uint32, raw []byte) ([]uint32, Origin, error) {
	seed := l.seed ^ xxh3.HashString(pool)
	origin := Cache
	for len(raw) > 0 {
		n := chunkEnd(raw)
		d := xxh3.Hash128Seed(raw[:n], seed)
		known, ok := l.cache.get(d)
		if !ok {
			if origin == Cache { // the first that takes work
				origin = Local
				select {
				case l.turns <- struct{}{}:
					defer func() { <-l.turns }()
				case <-ctx.Done():
					return nil, "", unknown(Busy)
				}
			}
			if ctx.Err() != nil {
				return nil, "", unknown(Late)
			}
			text, err := unquote(raw[:n])
			if err != nil {
				return nil, "", err
			}
			if known, err = t.Append(make([]uint32, 0, len(text)/3+8), text); err != nil {
				return nil, "", err
			}
			l.cache.put(d, known)
		}
		ids, raw = append(ids, known...), raw[n:]
	}
	return ids, origin, nil
}
