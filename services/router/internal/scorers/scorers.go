// Package scorers asks the scorers of the fleet what engines hold of a prompt.
package scorers

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"

	"github.com/warmpath/warmpath/libs/fleet"
	scorerv1 "github.com/warmpath/warmpath/proto/warmpath/scorer/v1"
)

// What is scored, and how long that may take.
const (
	MostBytes = 4 << 20               // of a body that is scored
	LeastTime = 25 * time.Millisecond // that the smallest body gets
	per10KB   = time.Millisecond      // more for the bytes of larger ones
	window    = 16 << 20              // bytes of answers under way
)

// Why a request was not scored; the router's approximation stands in.
var (
	ErrNoScorer = errors.New("no scorer is known")
	ErrTooLarge = errors.New("body is too large to score")
)

// Clients are the connections to the scorers, made when they are needed. The zero value is ready; safe for concurrent use.
type Clients struct {
	Least time.Duration // that the smallest body gets; 0 is LeastTime

	mu    sync.Mutex
	conns map[string]*grpc.ClientConn
}

// Ask scores a request whose body has so many bytes, which set its deadline. key keeps one conversation with one scorer,
// whose tokenizer then remembers its head.
func (s *Clients) Ask(ctx context.Context, v *fleet.View, key uint64, size int, r *scorerv1.ScoreRequest) (*scorerv1.ScoreResponse, error) {
	if size > MostBytes {
		return nil, ErrTooLarge
	}
	address := scorerFor(v, key)
	if address == "" {
		return nil, ErrNoScorer
	}
	conn, err := s.conn(v, address)
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, cmp.Or(s.Least, LeastTime)+per10KB*time.Duration(size/10_000))
	defer cancel()
	resp, err := scorerv1.NewScorerClient(conn).Score(ctx, r)
	if err != nil {
		return nil, fmt.Errorf("score: %w", err)
	}
	return resp, nil
}

// Unknown says in a fixed word why what Ask returned is no score; empty when it is one.
func Unknown(resp *scorerv1.ScoreResponse, err error) string {
	switch {
	case errors.Is(err, ErrNoScorer):
		return "no scorer"
	case errors.Is(err, ErrTooLarge):
		return "too large"
	case status.Code(err) == codes.DeadlineExceeded:
		return "late"
	case status.Code(err) == codes.Unavailable:
		return "away"
	case err != nil:
		return "error"
	case resp.Unknown, resp.PromptTokens == 0, len(resp.Keys) > 0 && resp.BlockSize == 0:
		return "no tokens"
	}
	return ""
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
func (s *Clients) conn(v *fleet.View, address string) (*grpc.ClientConn, error) {
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
	c, err := grpc.NewClient("passthrough:///"+address, grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithInitialWindowSize(window), grpc.WithInitialConnWindowSize(window), // no pings that measure how large they should be
		grpc.WithDisableRetry(), grpc.WithDisableServiceConfig())
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

// Close ends all connections.
func (s *Clients) Close() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for address, c := range s.conns {
		_ = c.Close()
		delete(s.conns, address)
	}
}
