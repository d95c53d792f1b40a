package index

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"net"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"

	"github.com/warmpath/warmpath/libs/daemon"
	"github.com/warmpath/warmpath/libs/fleet"
	"github.com/warmpath/warmpath/libs/kvevent"
	eventsv1 "github.com/warmpath/warmpath/proto/warmpath/events/v1"
	indexv1 "github.com/warmpath/warmpath/proto/warmpath/index/v1"
)

// childOf is set in a process that this test runs to kill it: the URL of NATS, a blank and the shard of 64.
const childOf = "INDEX_TEST_CHILD"

func TestMain(m *testing.M) {
	if child := os.Getenv(childOf); child != "" {
		if err := beChild(child); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		return
	}
	os.Exit(m.Run())
}

// told is what a child says of itself when it is asked.
type told struct {
	Applied uint64
	States  map[string]state
	Faults  float64 // digests that differ, holes, refusals, questions
}

// beChild runs an index. It prints "begun", then its address once it is ready, then what it holds for each line that
// it reads, and ends with its input.
func beChild(child string) error {
	var url string
	var shard int
	if _, err := fmt.Sscan(child, &url, &shard); err != nil {
		return err
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	stray, registry, health := make(chan func(*store)), prometheus.NewRegistry(), &daemon.Health{}
	ended := make(chan error, 1)
	fmt.Println("begun")
	go func() {
		ended <- Run(context.Background(), Config{NATS: url, Listener: l, Shards: fleet.Buckets, Shard: shard,
			Metrics: registry, Health: health, stray: stray, Log: slog.New(slog.NewTextHandler(os.Stderr, nil))})
	}()
	for ; health.Ready() != nil; time.Sleep(time.Millisecond) {
		select {
		case err := <-ended:
			return err
		default:
		}
	}
	fmt.Println(l.Addr())
	out := json.NewEncoder(os.Stdout)
	for in := bufio.NewScanner(os.Stdin); in.Scan(); {
		var t told
		done := make(chan struct{})
		stray <- func(s *store) {
			t.Applied, t.States = s.applied.Load(), statesIn(s)
			close(done)
		}
		<-done
		for _, name := range faults {
			n, err := sumCounter(registry, name)
			if err != nil {
				return err
			}
			t.Faults += n
		}
		if err := out.Encode(t); err != nil {
			return err
		}
	}
	return nil
}

// faults are counters that a sound log leaves at zero.
var faults = []string{"unequal_digests_total", "holes_total", "lost_messages_total", "refused_total", "asks_total"}

// child is a running one.
type child struct {
	t      testing.TB
	cmd    *exec.Cmd
	in     io.WriteCloser
	out    *bufio.Scanner
	errors bytes.Buffer
}

func (w *world) spawn(shard int) *child {
	c := &child{t: w.TB, cmd: exec.Command(os.Args[0])}
	c.cmd.Env = append(os.Environ(), fmt.Sprintf("%s=%s %d", childOf, w.server.URL(), shard), "GOMAXPROCS=2")
	c.cmd.Stderr = &c.errors
	out, err := c.cmd.StdoutPipe()
	if err == nil {
		c.in, err = c.cmd.StdinPipe()
	}
	if err == nil {
		err = c.cmd.Start()
	}
	if err != nil {
		w.Error(err)
	}
	c.out = bufio.NewScanner(out)
	c.out.Buffer(nil, 1<<20)
	return c
}

func (c *child) line() string {
	if !c.out.Scan() {
		c.t.Errorf("a child ended: %v %s", c.out.Err(), c.errors.String())
	}
	return c.out.Text()
}

func (c *child) ask() (t told) {
	fmt.Fprintln(c.in, "state")
	if err := json.Unmarshal([]byte(c.line()), &t); err != nil {
		c.t.Error(err)
	}
	return t
}

func (c *child) kill() {
	_ = c.cmd.Process.Kill() // SIGKILL
	_ = c.cmd.Wait()
}

// Whatever an owner publishes, and at whatever moment an index is killed: one that is started again answers as one that
// was never killed, and as the engines' caches are.
func TestKilledIndexAnswersAsOneThatWasNot(t *testing.T) {
	seeds := 50
	if testing.Short() || raceDetector {
		seeds = 8
	}
	w := newWorld(t)
	twin := w.startIndex(Config{})
	t.Run("seed", func(t *testing.T) {
		for seed := range seeds {
			t.Run(fmt.Sprint(seed), func(t *testing.T) {
				t.Parallel()
				own := *w
				own.TB = t
				own.killed(twin, seed)
			})
		}
	})
	for _, name := range faults {
		if n := twin.count(name); n != 0 {
			t.Errorf("the twin counts %v of %s", n, name)
		}
	}
	if n := twin.count("fenced_messages_total"); n == 0 {
		t.Error("no stale owner wrote: the test tests less than it says")
	}
}

// killed plays the history of one seed in the bucket of that number.
func (w *world) killed(twin *replica, seed int) {
	k := w.keeper(uint64(seed), seed, 1+seed%3, 24)
	history := func(n int) {
		for range n {
			k.step()
		}
	}
	history(k.rnd.IntN(40))
	for range 1 + k.rnd.IntN(3) {
		c := w.spawn(seed)
		c.line() // begun
		if k.rnd.IntN(2) == 0 {
			history(k.rnd.IntN(30)) // killed while it connects, reads or follows
		} else {
			history(k.rnd.IntN(10))
			c.line() // ready
			history(k.rnd.IntN(10))
		}
		c.kill()
		history(k.rnd.IntN(10))
	}
	c := w.spawn(seed)
	c.line()
	history(k.rnd.IntN(20))
	address := c.line()
	defer c.kill()
	var got told
	defer func() {
		if w.Failed() {
			w.Logf("applied %d of %d\ngot  %v\nwant %v\n%s", got.Applied, k.last, got.States, k.want(), c.errors.String())
		}
	}()
	w.eventually("the child holds what the engines hold", func() bool {
		got = c.ask()
		return got.Applied >= k.last && maps.Equal(got.States, k.want())
	})
	if got.Faults != 0 {
		w.Errorf("the child counts %v faults", got.Faults)
	}
	w.eventually("so does the twin", func() bool {
		all := twin.states()
		maps.DeleteFunc(all, func(id string, _ state) bool { return fleet.Bucket(id) != seed })
		return maps.Equal(all, k.want())
	})
	conn, err := grpc.NewClient(address, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		w.Error(err)
		return
	}
	defer conn.Close()
	for i := range k.keys {
		var answers []string
		for _, x := range []indexv1.IndexClient{indexv1.NewIndexClient(conn), twin} {
			res, err := x.Match(w.Context(), &indexv1.MatchRequest{Pool: testPool, Keys: k.chain(i), Buckets: 1 << seed})
			if err != nil {
				w.Errorf("ask: %v", err)
				return
			}
			answers = append(answers, fmt.Sprintf("%x %s", res.Buckets, strings.Join(rows(res), ", ")))
		}
		if answers[0] != answers[1] {
			w.Errorf("chain %d: the child answers %s, the twin %s", i, answers[0], answers[1])
			return
		}
	}
}

// rows is all that an answer says of engines, but for their lag.
func rows(res *indexv1.MatchResponse) (lines []string) {
	for _, e := range res.Engines {
		lines = append(lines, fmt.Sprintf("%s %d/%d of %d, evicted %v, life %d", e.Engine, e.Gpu, e.Any, e.Visible, e.Evicted, e.Generation))
	}
	return lines
}

// step does one random thing to a random engine, or to the bucket.
func (k *keeper) step() {
	c := k.engines[k.rnd.IntN(len(k.engines))]
	op := k.rnd.IntN(100)
	if c.gone && op < 90 {
		if op < 10 {
			k.reset(c)
		}
		return
	}
	switch {
	case op < 40:
		k.store(c)
	case op < 62:
		k.remove(c)
	case op < 64:
		k.fold(c, kvevent.Event{Kind: kvevent.Cleared})
	case op < 67:
		k.reset(c)
	case op < 75:
		k.snapshot(c)
	case op < 78:
		k.interleaved(c)
	case op < 82: // NATS was away: deltas were dropped, a snapshot stands for them
		publish := k.quiet
		k.quiet = true
		for range 4 {
			k.store(c)
			k.remove(c)
		}
		k.quiet = publish
		k.snapshot(c)
	case op < 88:
		k.digest(c)
	case op < 90:
		c.gone = true
		k.record(c.id, c.generation, fleet.Gone)
	case op < 94:
		k.changeOwner(c)
	default:
		k.position()
	}
}

// interleaved publishes a snapshot with another engine's deltas between its parts.
func (k *keeper) interleaved(c *engineCache) {
	other := k.engines[k.rnd.IntN(len(k.engines))]
	for i, p := range k.parts(c) {
		if seq := k.publish(p); i == 0 {
			c.begun = seq
		}
		if other != c && !other.gone {
			k.store(other)
		}
	}
}

// changeOwner lets another owner claim the bucket, perhaps amid a snapshot, and the old one write on without the fence.
func (k *keeper) changeOwner(c *engineCache) {
	if parts := k.parts(c); !c.gone && k.rnd.IntN(2) == 0 {
		for _, p := range parts[:len(parts)-1] {
			k.publish(p)
		}
	}
	old := owner{world: k.world, name: k.name, bucket: k.bucket, counter: k.counter}
	k.name, k.counter = fmt.Sprint("owner-", k.last), k.rnd.Uint64N(1000)
	k.last = k.claim()
	k.mine = k.last
	for range k.rnd.IntN(3) {
		var part *eventsv1.Part
		if part = show(c.id, 1, 2, 3); k.rnd.IntN(2) == 0 {
			part = resetOf(c.id)
		}
		k.last = k.raw(old.message(part))
	}
}
