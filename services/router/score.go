package router

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"

	"github.com/warmpath/warmpath/libs/fleet"
	scorerv1 "github.com/warmpath/warmpath/proto/warmpath/scorer/v1"
)

const (
	maxScored    = 4 << 20 // larger bodies are not scored
	scoreTime    = 25 * time.Millisecond
	scorePer10KB = time.Millisecond
)

// Why a request was not scored; the approximation stands in.
var (
	errNoScorer = errors.New("no scorer is known")
	errTooLarge = errors.New("body is too large to score")
)

// scorers asks the scorers of the fleet. Safe for concurrent use.
type scorers struct {
	least time.Duration // time that the smallest body gets

	mu    sync.Mutex
	conns map[string]*grpc.ClientConn
}

// ask scores a request. key keeps one conversation with one scorer, whose tokenizer then remembers its head.
func (s *scorers) ask(ctx context.Context, v *fleet.View, key uint64, q *request) (*scorerv1.ScoreResponse, error) {
	size := len(q.body.raw)
	if size > maxScored {
		return nil, errTooLarge
	}
	address := scorerFor(v, key)
	if address == "" {
		return nil, errNoScorer
	}
	conn, err := s.conn(v, address)
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, s.least+scorePer10KB*time.Duration(size/10_000))
	defer cancel()
	resp, err := scorerv1.NewScorerClient(conn).Score(ctx, &scorerv1.ScoreRequest{
		Pool: q.pool.ID, Model: q.model, Lora: q.lora, Kind: q.kind, Spans: q.spans(), CacheSalt: q.salt,
	})
	if err != nil {
		return nil, fmt.Errorf("score: %w", err)
	}
	return resp, nil
}

// scorerFor chooses by rendezvous among the ready scorers.
func scorerFor(v *fleet.View, key uint64) (address string) {
	var most uint64
	for i := range v.Members {
		m := &v.Members[i]
		if m.Service != "scorer" || !m.Ready {
			continue
		}
		if w := mix(key, m.Instance); address == "" || w > most {
			address, most = m.Address, w
		}
	}
	return address
}

func mix(key uint64, name string) uint64 {
	h := key ^ 14695981039346656037
	for i := range len(name) {
		h = (h ^ uint64(name[i])) * 1099511628211
	}
	h ^= h >> 32
	return h * 0x9e3779b97f4a7c15
}

// conn returns the connection to an address, and closes those to members that have left.
func (s *scorers) conn(v *fleet.View, address string) (*grpc.ClientConn, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if c, ok := s.conns[address]; ok {
		return c, nil
	}
	for known, c := range s.conns {
		if !isMember(v, known) {
			_ = c.Close()
			delete(s.conns, known)
		}
	}
	c, err := grpc.NewClient("passthrough:///"+address, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		return nil, fmt.Errorf("dial scorer %s: %w", address, err)
	}
	if s.conns == nil {
		s.conns = make(map[string]*grpc.ClientConn)
	}
	s.conns[address] = c
	return c, nil
}

func isMember(v *fleet.View, address string) bool {
	for i := range v.Members {
		if v.Members[i].Address == address {
			return true
		}
	}
	return false
}

func (s *scorers) close() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for address, c := range s.conns {
		_ = c.Close()
		delete(s.conns, address)
	}
}
