package plane

import (
	"context"
	"fmt"
	"slices"
	"time"

	"golang.org/x/sync/errgroup"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"

	indexv1 "github.com/warmpath/warmpath/proto/warmpath/index/v1"
)

// truth is what an engine holds: blocks with all blocks before them.
type truth struct {
	keys   map[uint64]bool
	chains [][]uint64 // the keys of each path from a first block to a block without a next one
}

// truth reads the engine's own cache, and no event. Chains are as many as limit, all if that is 0.
func (e *engine) truth(limit int) truth {
	cached := e.core.Cached()
	visible := make(map[uint64]bool, len(cached))
	var isVisible func(hash uint64) bool
	isVisible = func(hash uint64) bool {
		v, known := visible[hash]
		if !known {
			l := e.links[hash]
			v = cached[hash] > 0 && (l.first || isVisible(l.parent))
			visible[hash] = v
		}
		return v
	}
	t := truth{keys: make(map[uint64]bool, len(cached))}
	inner := make(map[uint64]bool, len(cached))
	for hash := range cached {
		if isVisible(hash) {
			l := e.links[hash]
			t.keys[l.key] = true
			if !l.first {
				inner[l.parent] = true
			}
		}
	}
	for hash := range cached {
		if visible[hash] && !inner[hash] && (limit == 0 || len(t.chains) < limit) {
			t.chains = append(t.chains, e.chain(hash))
		}
	}
	return t
}

// chain is the keys of the blocks that lead to one.
func (e *engine) chain(hash uint64) (keys []uint64) {
	for {
		l := e.links[hash]
		keys = append(keys, l.key)
		if l.first {
			slices.Reverse(keys)
			return keys
		}
		hash = l.parent
	}
}

// depth is how many leading keys are held.
func depth(held map[uint64]bool, keys []uint64) uint32 {
	for i, key := range keys {
		if !held[key] {
			return uint32(i)
		}
	}
	return uint32(len(keys))
}

// verdict is how an index compares with the truth.
type verdict struct {
	Equal          bool
	Why            string // it is not equal
	Chains, Blocks int    // asked for, and held by all engines
}

// reader asks an index.
type reader struct {
	conn   *grpc.ClientConn
	client indexv1.IndexClient
	pool   string
}

func dial(address, pool string) (*reader, error) {
	conn, err := grpc.NewClient(address, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		return nil, fmt.Errorf("dial the index: %w", err)
	}
	return &reader{conn, indexv1.NewIndexClient(conn), pool}, nil
}

func (r *reader) close() { _ = r.conn.Close() }

func (r *reader) match(ctx context.Context, keys []uint64) (map[string]*indexv1.EngineMatch, error) {
	answer, err := r.client.Match(ctx, &indexv1.MatchRequest{Pool: r.pool, Keys: keys})
	if err != nil {
		return nil, err
	}
	by := make(map[string]*indexv1.EngineMatch, len(answer.Engines))
	for _, e := range answer.Engines {
		by[e.Engine] = e
	}
	return by, nil
}

// compare asks for every chain and says where an engine's depth or number of blocks is not the true one. An index that
// gives each engine's chains in full and holds as many blocks as the engine does holds the very same blocks.
func (r *reader) compare(ctx context.Context, truths map[string]truth) (v verdict) {
	v.Equal = true
	group, ctx := errgroup.WithContext(ctx)
	group.SetLimit(4)
	for _, t := range truths {
		v.Blocks += len(t.keys)
		v.Chains += len(t.chains)
	}
	group.Go(func() error {
		got, err := r.match(ctx, nil)
		if err == nil && len(got) != len(truths) {
			err = fmt.Errorf("the index knows %d engines, there are %d", len(got), len(truths))
		}
		return err
	})
	for _, t := range truths {
		for _, chain := range t.chains {
			if ctx.Err() != nil {
				break
			}
			group.Go(func() error { return r.compareOne(ctx, truths, chain) })
		}
	}
	if err := group.Wait(); err != nil {
		v.Equal, v.Why = false, err.Error()
	}
	return v
}

func (r *reader) compareOne(ctx context.Context, truths map[string]truth, chain []uint64) error {
	got, err := r.match(ctx, chain)
	if err != nil {
		return err
	}
	for id, t := range truths {
		e := got[id]
		want := depth(t.keys, chain)
		switch {
		case e == nil:
			return fmt.Errorf("the index does not know %s", id)
		case e.Visible != uint64(len(t.keys)):
			return fmt.Errorf("%s holds %d blocks, in the index %d", id, len(t.keys), e.Visible)
		case e.Gpu != want || e.Any != want:
			return fmt.Errorf("%s holds %d blocks of a chain of %d, in the index %d and %d", id, want, len(chain), e.Gpu, e.Any)
		}
	}
	return nil
}

// until calls try every few milliseconds until it is content or time is over, and returns its last word.
func until(ctx context.Context, limit time.Duration, try func() error) error {
	poll := time.NewTicker(5 * time.Millisecond)
	defer poll.Stop()
	for deadline := time.Now().Add(limit); ; {
		err := try()
		if err == nil || time.Now().After(deadline) {
			return err
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-poll.C:
		}
	}
}
