package index

import (
	"context"
	"sync"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/warmpath/warmpath/libs/prefix"
	indexv1 "github.com/warmpath/warmpath/proto/warmpath/index/v1"
)

const (
	drainTime  = 5 * time.Second // for calls in flight at the end
	maxRequest = 4 << 20         // bytes: half a million keys
)

// server answers Match. It never waits for the writer.
type server struct {
	indexv1.UnimplementedIndexServer
	store   *store
	metrics *metrics
	depths  sync.Pool // *[]prefix.Depth
}

func newGRPC(s *server) *grpc.Server {
	g := grpc.NewServer(grpc.MaxRecvMsgSize(maxRequest))
	indexv1.RegisterIndexServer(g, s)
	return g
}

// Match tells how many leading keys each engine of the asked buckets holds. The answer lies between the log folded to
// applied and to begun. It covers the buckets that were whole all the while.
func (s *server) Match(_ context.Context, req *indexv1.MatchRequest) (*indexv1.MatchResponse, error) {
	start := time.Now()
	life := s.store.life.Load()
	if !s.store.ready.Load() {
		return nil, status.Error(codes.Unavailable, "the index is still reading the stream")
	}
	covered := s.store.covered.Load()
	if req.Buckets != 0 {
		covered &= req.Buckets
	}
	res := &indexv1.MatchResponse{Applied: s.store.applied.Load()}
	s.match(req, covered, res)
	res.Begun = s.store.begun.Load()
	res.Buckets = covered & s.store.covered.Load()
	if s.store.life.Load() != life {
		return nil, status.Error(codes.Unavailable, "the index was built anew meanwhile")
	}
	s.metrics.match.Observe(time.Since(start).Seconds())
	return res, nil
}

func (s *server) match(req *indexv1.MatchRequest, buckets uint64, res *indexv1.MatchResponse) {
	p := s.store.pool(req.Pool)
	if p == nil {
		return
	}
	buf, _ := s.depths.Get().(*[]prefix.Depth)
	if buf == nil {
		buf = new([]prefix.Depth)
	}
	depths := p.x.Match(req.Keys, (*buf)[:0])
	rows := make([]indexv1.EngineMatch, len(depths))
	res.Engines = make([]*indexv1.EngineMatch, 0, len(depths))
	for i, d := range depths {
		v, ok := p.engines.Load(d.Engine)
		if !ok {
			continue
		}
		at := v.(*seat)
		info, ok := p.x.Engine(d.Engine)
		if !ok || buckets>>at.bucket&1 == 0 {
			continue
		}
		row := &rows[i]
		row.Engine, row.Gpu, row.Any = d.Engine, uint32(d.GPU), uint32(d.Any)
		row.Visible, row.Evicted, row.Generation = uint64(info.VisibleGPU), info.Evicted, info.Generation
		row.LagUs = at.lagUS.Load()
		res.Engines = append(res.Engines, row)
	}
	clear(depths)
	*buf = depths
	s.depths.Put(buf)
}
