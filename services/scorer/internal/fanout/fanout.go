// Package fanout asks index members how many leading blocks of a chain each engine holds, and merges their answers.
//
// It asks the fewest members that cover all buckets, goes to another one for what fails or is slow, and says which
// buckets were answered for. It never waits longer than its deadline and makes up no answer: an engine that no member
// knows is not in the result.
package fanout

import (
	"context"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"
	"google.golang.org/grpc/credentials/insecure"

	"github.com/warmpath/warmpath/libs/fleet"
	indexv1 "github.com/warmpath/warmpath/proto/warmpath/index/v1"
)

// Timeout bounds Match where Options give none.
const Timeout = 5 * time.Millisecond

// Options of a Fanout. The zero value is usable.
type Options struct {
	// Timeout bounds a Match; after three fifths of it members that have not answered are no longer relied upon.
	Timeout time.Duration
	// Failed is called with each call of a member that failed.
	Failed func(member string, err error)
}

// Fanout holds a connection to each ready index member. Match may be called from any goroutine, also while Set runs.
type Fanout struct {
	timeout time.Duration
	failed  func(member string, err error)
	roster  atomic.Pointer[roster]

	mu      sync.Mutex // of all below
	conns   map[string]*grpc.ClientConn
	leaving map[string]leaver
}

// roster is the members at one moment, never changed.
type roster struct {
	members []fleet.Member
	clients []indexv1.IndexClient
	plan    []ask // covers All
}

// New returns a Fanout that knows no member.
func New(o Options) *Fanout {
	f := &Fanout{timeout: o.Timeout, failed: o.Failed, conns: make(map[string]*grpc.ClientConn), leaving: make(map[string]leaver)}
	if f.timeout == 0 {
		f.timeout = Timeout
	}
	if f.failed == nil {
		f.failed = func(string, error) {}
	}
	f.roster.Store(&roster{})
	return f
}

// Set makes the ready index members among all the ones to ask. Connections to new ones begin at once; those to members
// that have gone are closed when no Match that knew them can be under way. An address that makes no sense is an error
// and left out.
func (f *Fanout) Set(all []fleet.Member) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	var wrong error
	next := &roster{}
	kept := make(map[string]*grpc.ClientConn)
	for _, m := range all {
		if m.Service != "index" || !m.Ready || m.Buckets == 0 {
			continue
		}
		conn, err := f.conn(kept, m.Address)
		if err != nil {
			wrong = fmt.Errorf("dial index member %s at %q: %w", m.Instance, m.Address, err)
			continue
		}
		next.members = append(next.members, m)
		next.clients = append(next.clients, indexv1.NewIndexClient(conn))
	}
	next.plan = cover(next.members, All, nil)
	f.roster.Store(next)
	for address, conn := range f.conns {
		if kept[address] == nil {
			f.retire(address, conn)
		}
	}
	f.conns = kept
	return wrong
}

// conn returns the connection to an address, old or new, and keeps it. f.mu is held.
func (f *Fanout) conn(kept map[string]*grpc.ClientConn, address string) (*grpc.ClientConn, error) {
	if conn := kept[address]; conn != nil {
		return conn, nil
	}
	conn := f.conns[address]
	if l, ok := f.leaving[address]; ok { // it is back
		l.shut.Stop()
		delete(f.leaving, address)
		conn = l.conn
	}
	if conn == nil {
		var err error
		conn, err = grpc.NewClient(address,
			grpc.WithTransportCredentials(insecure.NewCredentials()),
			grpc.WithIdleTimeout(0),
			grpc.WithConnectParams(grpc.ConnectParams{
				Backoff:           backoff.Config{BaseDelay: 100 * time.Millisecond, Multiplier: 1.6, Jitter: .2, MaxDelay: 2 * time.Second},
				MinConnectTimeout: time.Second,
			}))
		if err != nil {
			return nil, err
		}
		conn.Connect()
	}
	kept[address] = conn
	return conn, nil
}

// leaver is the connection to a member that has gone, and what will close it.
type leaver struct {
	conn *grpc.ClientConn
	shut *time.Timer
}

// retire closes a connection once the answers that are waited for have come or are late: a member that leaves goes on
// answering for a while. f.mu is held.
func (f *Fanout) retire(address string, conn *grpc.ClientConn) {
	f.leaving[address] = leaver{conn, time.AfterFunc(f.timeout, func() {
		f.mu.Lock()
		defer f.mu.Unlock()
		if f.leaving[address].conn == conn {
			delete(f.leaving, address)
			_ = conn.Close() // it only says that it was closed before
		}
	})}
}

// Close closes all connections.
func (f *Fanout) Close() {
	_ = f.Set(nil)
	f.mu.Lock()
	defer f.mu.Unlock()
	for address, l := range f.leaving {
		l.shut.Stop()
		_ = l.conn.Close()
		delete(f.leaving, address)
	}
}

// Covered returns the buckets that the members known now can answer for.
func (f *Fanout) Covered() uint64 {
	var buckets uint64
	for _, a := range f.roster.Load().plan {
		buckets |= a.buckets
	}
	return buckets
}

// Match asks for the chain of keys in a pool. It returns within the timeout, and before ctx ends.
func (f *Fanout) Match(ctx context.Context, pool string, keys []uint64) Result {
	ctx, cancel := context.WithTimeout(ctx, f.timeout)
	defer cancel()
	r := f.roster.Load()
	m := &match{
		Fanout: f, roster: r, pool: pool, keys: keys,
		replies: make(chan reply, len(r.members)), asked: make([]uint64, len(r.members)), done: make([]bool, len(r.members)),
	}
	m.send(ctx, r.plan)
	return merge(m.collect(ctx))
}
