package fanout

import (
	"context"
	"time"

	indexv1 "github.com/warmpath/warmpath/proto/warmpath/index/v1"
)

// match is one Match under way. Each member is asked at most once.
type match struct {
	*Fanout
	*roster
	pool string
	keys []uint64

	replies chan reply // has room for one of each member: none is left behind in a goroutine
	asked   []uint64   // by member: the buckets that it was asked for
	done    []bool     // by member: it has replied, or is not waited for
	pending int
	covered uint64
	answers []answer
}

type reply struct {
	member   int
	response *indexv1.MatchResponse
	err      error
}

// send asks members, each in its own goroutine.
func (m *match) send(ctx context.Context, asks []ask) {
	for _, a := range asks {
		m.asked[a.member] = a.buckets
		m.pending++
		go func() {
			request := &indexv1.MatchRequest{Pool: m.pool, Keys: m.keys, Buckets: a.buckets}
			response, err := m.clients[a.member].Match(ctx, request)
			m.replies <- reply{a.member, response, err}
		}()
	}
}

// collect takes replies until all buckets are covered or nobody is left to hear from: every call ends with ctx.
func (m *match) collect(ctx context.Context) []answer {
	slow := time.NewTimer(m.timeout * 3 / 5)
	defer slow.Stop()
	for m.pending > 0 && m.covered != All {
		select {
		case r := <-m.replies:
			m.pending--
			m.done[r.member] = true
			m.take(r)
			m.elsewhere(ctx)
		case <-slow.C:
			for i := range m.done {
				m.done[i] = m.done[i] || m.asked[i] != 0
			}
			m.elsewhere(ctx)
		}
	}
	return m.answers
}

func (m *match) take(r reply) {
	name := m.members[r.member].Instance
	if r.err != nil {
		m.failed(name, r.err)
		return
	}
	m.covered |= r.response.GetBuckets()
	m.answers = append(m.answers, answer{name, r.response})
}

// elsewhere asks other members for the buckets that are neither covered nor waited for.
func (m *match) elsewhere(ctx context.Context) {
	if ctx.Err() != nil {
		return
	}
	missing := All &^ m.covered
	for i, buckets := range m.asked {
		if !m.done[i] {
			missing &^= buckets
		}
	}
	m.send(ctx, cover(m.members, missing, func(i int) bool { return m.asked[i] != 0 }))
}
