package tokens

import (
	"context"
	"fmt"
	"strconv"
	"time"

	"golang.org/x/sync/singleflight"

	scorerv1 "github.com/warmpath/warmpath/proto/warmpath/scorer/v1"
	"github.com/warmpath/warmpath/services/scorer/internal/bpe"
)

// Origin says where token ids came from.
type Origin string

// The origins.
const (
	IDs      Origin = "ids"      // the request
	Cache    Origin = "cache"    // an answer for the same prompt, or for all of its chunks
	Local    Origin = "local"    // a tokenizer here, some of it from the cache
	Render   Origin = "render"   // an engine of the pool, which rendered the request
	Tokenize Origin = "tokenize" // an engine of the pool, by /tokenize
)

// Options of a Source. The zero value of each but Engines means its default.
type Options struct {
	// Engines returns the base URLs of a pool's engines that can tokenize, in any order.
	Engines func(pool string) []string
	// Timeout bounds a call of an engine, with 1 ms more for each 10 KB of text. Default 25 ms.
	Timeout time.Duration
	// Concurrency bounds the calls at a time. Default 32.
	Concurrency int
	// CacheBytes bounds the token ids kept. Default 64 MiB; negative for none.
	CacheBytes int64
	// Seed keys the digests of the cache.
	Seed uint64
	// Tokenizers are those to use in place of engines, by pool, once an engine has agreed with them.
	Tokenizers map[string]*bpe.Tokenizer
	// Tried is called when an engine has agreed with a tokenizer for a model (nil), and when it does not (why).
	Tried func(model string, err error)
	// Report is called when the calls of an engine keep failing (with why) and when they work again (nil).
	Report func(url string, err error)
}

// Source finds the tokens of prompts. Its methods may be called from any goroutine.
type Source struct {
	timeout time.Duration
	seed    uint64
	cache   *cache
	flights singleflight.Group
	client  *client
	local   *local
}

// New returns a Source that has called nobody yet.
func New(o Options) *Source {
	s := &Source{timeout: o.Timeout, seed: o.Seed, client: newClient(o)}
	if s.timeout == 0 {
		s.timeout = 25 * time.Millisecond
	}
	if o.CacheBytes == 0 {
		o.CacheBytes = 64 << 20
	}
	s.cache = newCache(o.CacheBytes)
	s.local = newLocal(o, s.cache, s.ask)
	return s
}

// Close drops idle connections to engines.
func (s *Source) Close() { s.client.http.CloseIdleConnections() }

// CacheBytes returns the bytes that the cache holds now.
func (s *Source) CacheBytes() int64 { return s.cache.size() }

// Tokens returns the token ids of the request's first prompt, or an *UnknownError as its error. The ids are shared and
// must not be written to. It returns when ctx ends, at the latest.
func (s *Source) Tokens(ctx context.Context, r *scorerv1.ScoreRequest) ([]uint32, Origin, error) {
	p, why := read(r)
	if why != nil {
		return nil, "", why
	}
	if p.ids != nil {
		return p.ids, IDs, nil
	}
	if ids, origin, ok, err := s.local.tokens(ctx, r, &p); ok {
		return ids, origin, err
	}
	d := digestOf(s.seed, r, &p)
	if ids, ok := s.cache.get(d); ok {
		return ids, Cache, nil
	}
	flight := strconv.FormatUint(d.Hi, 36) + "." + strconv.FormatUint(d.Lo, 36)
	results := s.flights.DoChan(flight, func() (any, error) {
		// The flight outlives the request that began it: others wait for it, and the cache keeps what it brings.
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), s.deadline(p.size))
		defer cancel()
		f, err := s.client.tokenize(ctx, r.GetPool(), r.GetKind() == scorerv1.Kind_KIND_CHAT, body(r, &p))
		if err == nil {
			s.cache.put(d, f.ids)
		}
		return f, err
	})
	select {
	case <-ctx.Done():
		return nil, "", unknown(Late)
	case result := <-results:
		if result.Err != nil {
			return nil, "", result.Err
		}
		f, ok := result.Val.(found)
		if !ok {
			return nil, "", &UnknownError{Failed, fmt.Errorf("join a flight: %T", result.Val)}
		}
		return f.ids, f.origin, nil
	}
}

// ask asks an engine, whatever is kept.
func (s *Source) ask(ctx context.Context, r *scorerv1.ScoreRequest) ([]uint32, error) {
	p, why := read(r)
	if why != nil {
		return nil, why
	}
	f, err := s.client.tokenize(ctx, r.GetPool(), r.GetKind() == scorerv1.Kind_KIND_CHAT, body(r, &p))
	return f.ids, err
}

// deadline of a call: the timeout and 1 ms for each 10 KB of text.
func (s *Source) deadline(size int) time.Duration {
	return s.timeout + time.Duration(size)*time.Millisecond/10_000
}
