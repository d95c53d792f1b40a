package oracle

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"sync"
	"testing"
	"time"

	"google.golang.org/grpc"

	"github.com/warmpath/warmpath/libs/fleet"
	"github.com/warmpath/warmpath/libs/kvevent"
	"github.com/warmpath/warmpath/loadgen/enginesim"
	indexv1 "github.com/warmpath/warmpath/proto/warmpath/index/v1"
)

// drive sends the traffic from so many clients at once, and faults midway.
func (w *world) drive(seed uint64, n, clients int, midway func()) {
	w.t.Helper()
	talks := traffic(seed, n)
	next := make(chan int)
	var busy sync.WaitGroup
	for range clients {
		busy.Go(func() {
			for i := range next {
				if err := w.talk(fmt.Sprintf("oracle-%d-%04d", seed, i), &talks[i], 4+i%40, i%3 != 0); err != nil && midway == nil {
					w.t.Errorf("talk %d: %v", i, err)
				}
			}
		})
	}
	for i := range talks {
		if i == len(talks)/2 && midway != nil {
			midway()
		}
		next <- i
	}
	close(next)
	busy.Wait()
}

// rounds is how often traffic is sent again, each time from half as many clients, where a busy machine lets too many
// scores come too late to be judged.
const rounds = 5

const crowd = 16 // clients of the first round

// The index equals every engine's true cache at quiescence, and every logged match was possible at its time. Half of the
// engines are old ones that render no chats.
func TestOracle(t *testing.T) {
	w := setup{engines: 4, engine: func(i int, o *enginesim.Options) { o.NoRender = i%2 == 1 }}.start(t)
	for round := range uint64(rounds) {
		w.drive(10+round, 400, crowd>>round, nil)
		if lines := w.settle(deadline); len(lines) > 0 {
			t.Fatalf("%d differences at quiescence, first: %s", len(lines), lines[0])
		}
		log, records := w.history(len(w.sent))
		violations, answers := Possible(log, records)
		if len(violations) > 0 {
			t.Fatalf("%d impossible matches, first: %s", len(violations), violations[0])
		}
		if lines := w.misread(records); len(lines) > 0 {
			t.Fatalf("%d prompts read otherwise than by the engines, first: %s", len(lines), lines[0])
		}
		matched := map[string]int{}
		for _, r := range records {
			for _, d := range r.Depths {
				matched[r.API] += d.GPU
			}
		}
		t.Logf("%d messages, %d records, %d answers judged, blocks matched %v", len(log), len(records), answers, matched)
		if answers >= 600 && matched["/v1/completions"] >= 300 && matched["/v1/chat/completions"] >= 300 {
			return
		}
	}
	t.Fatal("too few answers to judge")
}

// The same with a lossy wire, an engine that restarts and one whose cache is reset in mid-run.
func TestOracleUnderFaults(t *testing.T) {
	w := newWorld(t, 3, direct)
	w.drive(2, 300, crowd, func() {
		w.engines[0].Publisher().DropLive(3)
		if err := w.engines[1].Restart(); err != nil {
			t.Error(err)
		}
		res, err := http.Post(w.engines[2].URL()+"/reset_prefix_cache", "", nil)
		if err != nil {
			t.Error(err)
			return
		}
		res.Body.Close()
	})
	if lines := w.settle(deadline); len(lines) > 0 {
		t.Fatalf("%d differences at quiescence, first: %s", len(lines), lines[0])
	}
	log, records := w.history(250)
	if violations, _ := Possible(log, records); len(violations) > 0 {
		t.Fatalf("%d impossible matches, first: %s", len(violations), violations[0])
	}
}

// An engine that keeps its evictions to itself: the oracle must see that the index believes too much.
func TestOracleCatchesSilentEvictions(t *testing.T) {
	quiet := func(t *testing.T, e *enginesim.Engine) (events, replay string) {
		var decoder kvevent.Decoder
		return relay(t, e, func(payload []byte) []byte {
			var b kvevent.Batch
			if err := decoder.Decode(payload, &b); err != nil {
				t.Error(err)
			}
			kept := b.Events[:0]
			for _, event := range b.Events {
				if event.Kind != kvevent.Removed {
					kept = append(kept, event)
				}
			}
			b.Events = kept
			return kvevent.Append(nil, &b, kvevent.MapForm)
		})
	}
	w := newWorld(t, 2, quiet)
	w.drive(3, 150, crowd, nil)
	if lines := w.settle(time.Second); len(lines) == 0 {
		t.Fatal("no difference was found although no engine announced an eviction")
	}
}

// liar is an index member that believes every engine one block warmer than it is.
type liar struct {
	indexv1.UnimplementedIndexServer
	honest []indexv1.IndexClient
}

func (l *liar) Match(ctx context.Context, r *indexv1.MatchRequest) (*indexv1.MatchResponse, error) {
	sum := &indexv1.MatchResponse{Buckets: ^uint64(0)}
	for _, client := range l.honest {
		answer, err := client.Match(ctx, r)
		if err != nil {
			return nil, err
		}
		sum.Engines = append(sum.Engines, answer.Engines...)
		sum.Applied, sum.Begun = max(sum.Applied, answer.Applied), max(sum.Begun, answer.Begun)
	}
	for _, e := range sum.Engines {
		if int(e.Gpu) < len(r.Keys) {
			e.Gpu, e.Any = e.Gpu+1, e.Gpu+1
		}
	}
	return sum, nil
}

// A member that answers more than the log says: the oracle must call its answers impossible.
func TestOracleCatchesAnswersThatTheLogDoesNotAllow(t *testing.T) {
	w := newWorld(t, 2, direct)
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	server := grpc.NewServer()
	indexv1.RegisterIndexServer(server, &liar{honest: w.clients()})
	go func() { _ = server.Serve(listener) }()
	t.Cleanup(server.Stop)
	ctx, cancel := context.WithCancel(t.Context())
	announced := make(chan struct{})
	var once sync.Once
	done := make(chan error, 1)
	go func() {
		done <- fleet.Announce(ctx, w.conn, func() fleet.Member {
			once.Do(func() { close(announced) })
			return fleet.Member{
				Service: "index", Instance: "liar", Address: listener.Addr().String(),
				Buckets: ^uint64(0), Applied: 1 << 62, Ready: true,
			}
		})
	}()
	t.Cleanup(func() { cancel(); <-done })
	<-announced
	for round := range uint64(rounds) {
		w.drive(40+round, 150, crowd>>round, nil)
		log, records := w.history(len(w.sent))
		if violations, _ := Possible(log, records); len(violations) > 0 {
			return
		}
	}
	t.Fatal("no answer was called impossible although a member added a block to each")
}
