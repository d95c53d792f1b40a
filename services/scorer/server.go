package scorer

import (
	"context"
	"errors"
	"time"

	"google.golang.org/grpc"

	"github.com/warmpath/warmpath/libs/blockkey"
	"github.com/warmpath/warmpath/libs/fleet"
	scorerv1 "github.com/warmpath/warmpath/proto/warmpath/scorer/v1"
	"github.com/warmpath/warmpath/services/scorer/internal/fanout"
	"github.com/warmpath/warmpath/services/scorer/internal/tokens"
)

const (
	drainTime  = 5 * time.Second          // for calls in flight at the end
	maxRequest = tokens.MaxPrompt + 1<<20 // a prompt that is too large is told so, not cut off
)

// noPool is the reason for a pool that this scorer has not heard of.
const noPool tokens.Reason = "pool not known"

// server answers Score. It holds nothing of a request once it is answered but token ids in the cache.
type server struct {
	scorerv1.UnimplementedScorerServer
	seed    blockkey.Seed
	view    func() *fleet.View
	tokens  *tokens.Source
	index   *fanout.Fanout
	reserve time.Duration // of the caller's deadline, for the index
	metrics *metrics
}

// Score never fails for what a prompt, an engine or the index does: such answers are unknown or partial.
func (s *server) Score(ctx context.Context, r *scorerv1.ScoreRequest) (*scorerv1.ScoreResponse, error) {
	start := time.Now()
	pool, ok := s.view().Pools[r.GetPool()]
	if !ok {
		return s.unknown(noPool), nil
	}
	ids, origin, err := s.find(ctx, r)
	if err != nil {
		reason := tokens.Failed
		if why := (*tokens.UnknownError)(nil); errors.As(err, &why) {
			reason = why.Reason
		}
		return s.unknown(reason), nil
	}
	tokenized := time.Now()
	keys := s.keys(r, &pool, ids)
	result := s.index.Match(ctx, pool.ID, keys)
	out := &scorerv1.ScoreResponse{
		PromptTokens: uint32(len(ids)), // bounded by tokens.MaxPrompt
		Source:       string(origin),
		BlockSize:    uint32(pool.BlockSize),
		Keys:         keys,
		Partial:      result.Covered != fanout.All,
		Shards:       result.Shards,
		Engines:      result.Engines,
		TokenizeUs:   tokenized.Sub(start).Microseconds(),
		MatchUs:      time.Since(tokenized).Microseconds(),
	}
	s.metrics.known(origin, out.GetPartial(), tokenized.Sub(start), time.Since(tokenized))
	return out, nil
}

// find gets the tokens while the caller's deadline leaves time to ask the index.
func (s *server) find(ctx context.Context, r *scorerv1.ScoreRequest) ([]uint32, tokens.Origin, error) {
	if end, ok := ctx.Deadline(); ok {
		var cancel context.CancelFunc
		ctx, cancel = context.WithDeadline(ctx, end.Add(-min(s.reserve, time.Until(end)/2)))
		defer cancel()
	}
	return s.tokens.Tokens(ctx, r)
}

// keys are those of the blocks that are full in canonical size.
func (s *server) keys(r *scorerv1.ScoreRequest, pool *fleet.Pool, ids []uint32) []uint64 {
	scope := blockkey.Scope{
		Seed: s.seed, Pool: pool.ID, BlockSize: pool.BlockSize, LoRA: r.GetLora(), Salt: r.GetCacheSalt(),
	}
	return blockkey.Keys(nil, scope, ids, nil)
}

func (s *server) unknown(reason tokens.Reason) *scorerv1.ScoreResponse {
	s.metrics.notKnown(reason)
	return &scorerv1.ScoreResponse{Unknown: true, Reason: string(reason)}
}

func newGRPC(s *server) *grpc.Server {
	g := grpc.NewServer(grpc.MaxRecvMsgSize(maxRequest), grpc.InitialWindowSize(maxRequest), grpc.InitialConnWindowSize(4*maxRequest))
	scorerv1.RegisterScorerServer(g, s)
	return g
}
