package hop

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"hash/maphash"
	"sync/atomic"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/warmpath/warmpath/libs/bus"
	"github.com/warmpath/warmpath/libs/daemon"
	"github.com/warmpath/warmpath/libs/fleet"
	"github.com/warmpath/warmpath/loadgen/process"
	scorerv1 "github.com/warmpath/warmpath/proto/warmpath/scorer/v1"
)

// scorer is the role of a scorer that knows the answer already: a real gRPC server and member of the fleet, which
// refuses a span that differs in one byte from what it should be. What a real one costs beside that is its own figure.
type scorer struct {
	scorerv1.UnimplementedScorerServer
	seed  maphash.Seed
	known map[uint64]*payload // by hash of the prompt
	asked atomic.Int64        // and answered
	conn  *bus.Conn
	stop  context.CancelFunc
	ended chan struct{}
}

func startScorer(ctx context.Context, config []byte) (process.Role, any, error) {
	var cfg load
	if err := json.Unmarshal(config, &cfg); err != nil {
		return nil, nil, err
	}
	listener, err := daemon.Listen(nil, "")
	if err != nil {
		return nil, nil, err
	}
	conn, err := bus.Connect(ctx, cfg.NATS, bus.Options{Name: "scorer", Log: logger("scorer")})
	if err != nil {
		return nil, nil, errors.Join(err, listener.Close())
	}
	ctx, stop := context.WithCancel(ctx)
	s := &scorer{seed: maphash.MakeSeed(), known: make(map[uint64]*payload), conn: conn, stop: stop, ended: make(chan struct{})}
	for _, p := range cfg.payloads() {
		s.known[maphash.Bytes(s.seed, p.prompt)] = p
	}
	server := grpc.NewServer(grpc.MaxRecvMsgSize(8<<20), grpc.InitialWindowSize(8<<20), grpc.InitialConnWindowSize(4*8<<20))
	scorerv1.RegisterScorerServer(server, s)
	go func() {
		defer close(s.ended)
		_ = daemon.ServeGRPC(ctx, listener, server, 0)
	}()
	member := fleet.Member{Service: "scorer", Instance: "bench", Address: listener.Addr().String(), Ready: true}
	go func() { _ = fleet.Announce(ctx, conn, func() fleet.Member { return member }) }()
	return s, nil, nil
}

// Score answers with what was made beforehand.
func (s *scorer) Score(_ context.Context, r *scorerv1.ScoreRequest) (*scorerv1.ScoreResponse, error) {
	if len(r.Spans) != 1 || r.Spans[0].Name != "messages" || r.Model != modelID || r.Kind != scorerv1.Kind_KIND_CHAT {
		return nil, status.Error(codes.InvalidArgument, "the question is not the one that must come")
	}
	p := s.known[maphash.Bytes(s.seed, r.Spans[0].Value)]
	if p == nil || !bytes.Equal(p.prompt, r.Spans[0].Value) {
		return nil, status.Error(codes.InvalidArgument, "the prompt is not one that must come")
	}
	s.asked.Add(1)
	return p.score, nil
}

// Handle answers "asked": how many questions were answered.
func (s *scorer) Handle(_ context.Context, name string, _ []byte) (any, error) {
	if name == "asked" {
		return s.asked.Load(), nil
	}
	return nil, process.ErrUnknownCall
}

func (s *scorer) Close() {
	s.stop()
	<-s.ended
	s.conn.Close()
}
