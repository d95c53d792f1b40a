package bus

import (
	"context"
	"log/slog"
	"net/url"
	"slices"
	"strconv"
	"testing"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/warmpath/warmpath/libs/bus/embedded"
)

// patience bounds every wait for something that must happen.
const patience = 20 * time.Second

func start(t *testing.T) *embedded.Server {
	t.Helper()
	s, err := embedded.Start(embedded.Options{Dir: t.TempDir(), MaxStore: 512 << 20})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.Stop)
	return s
}

// restartable is a server that comes back on the same port with the same store.
type restartable struct {
	*embedded.Server
	dir  string
	port int
}

func startRestartable(t *testing.T) *restartable {
	t.Helper()
	r := &restartable{dir: t.TempDir()}
	r.start(t)
	u, err := url.Parse(r.URL())
	if err != nil {
		t.Fatal(err)
	}
	if r.port, err = strconv.Atoi(u.Port()); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { r.Stop() })
	return r
}

func (r *restartable) start(t *testing.T) {
	t.Helper()
	s, err := embedded.Start(embedded.Options{Dir: r.dir, Port: r.port, MaxStore: 512 << 20})
	if err != nil {
		t.Fatal(err)
	}
	r.Server = s
}

func (r *restartable) restart(t *testing.T) {
	t.Helper()
	r.Stop()
	r.start(t)
}

func connect(t *testing.T, url string) *Conn {
	t.Helper()
	c, err := Connect(t.Context(), url, Options{Name: t.Name(), Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	if err := c.Ensure(t.Context(), Sizes{}); err != nil {
		t.Fatal(err)
	}
	return c
}

func deadline(t *testing.T) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	t.Cleanup(cancel)
	return ctx
}

// next takes one value from ch, or fails.
func next[T any](t *testing.T, ch <-chan T) T {
	t.Helper()
	select {
	case v := <-ch:
		return v
	case <-time.After(patience):
		t.Fatal("waited in vain")
		panic("unreachable")
	}
}

func TestSubjects(t *testing.T) {
	for bucket := range 64 {
		pool, b, ok := ParseEventSubject(EventSubject("some-pool-01234567", bucket))
		if pool != "some-pool-01234567" || b != bucket || !ok {
			t.Errorf("bucket %d comes back as %q, %d, %v", bucket, pool, b, ok)
		}
	}
	for _, s := range []string{"", "kv.", "kv.p", "kv.p.", "kv..01", "kv.p.1", "kv.p.64", "kv.p.+1", "kv.p.001", "req.p.01", "kv.p.01.x"} {
		if _, _, ok := ParseEventSubject(s); ok {
			t.Errorf("%q is taken for an event subject", s)
		}
	}
}

func TestEnsureTakesNoMoreThanHalfOfTheStore(t *testing.T) {
	t.Parallel()
	const store = 256 << 20
	s, err := embedded.Start(embedded.Options{Dir: t.TempDir(), MaxStore: store})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.Stop)
	c := connect(t, s.URL())
	left := int64(store)
	for _, name := range []string{Events, Requests} {
		info, err := c.streamInfo(t.Context(), name)
		if err != nil {
			t.Fatal(err)
		}
		if got := info.Config.MaxBytes; got > left/2 || got < left/4 {
			t.Errorf("%s keeps %d of %d bytes, want a quarter to a half", name, got, left)
		}
		left -= info.Config.MaxBytes
	}
}

func TestEnsureMakesWhatTheDesignSays(t *testing.T) {
	t.Parallel()
	s, err := embedded.Start(embedded.Options{Dir: t.TempDir(), MaxStore: 64 << 30})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.Stop)
	c := connect(t, s.URL())
	if err := connect(t, s.URL()).Ensure(t.Context(), Sizes{Events: 5 << 20}); err != nil {
		t.Fatalf("second Ensure: %v", err)
	}
	for name, want := range map[string]struct {
		bytes int64
		age   time.Duration
	}{Events: {1 << 30, 6 * time.Hour}, Requests: {2 << 30, 24 * time.Hour}} {
		info, err := c.streamInfo(t.Context(), name)
		if err != nil {
			t.Fatal(err)
		}
		got := info.Config
		if got.MaxBytes != want.bytes || got.MaxAge != want.age || got.AllowDirect ||
			got.Storage != jetstream.FileStorage || got.Discard != jetstream.DiscardOld {
			t.Errorf("%s is %+v", name, got)
		}
	}
	members, err := c.streamInfo(t.Context(), "KV_"+Members)
	if err != nil {
		t.Fatal(err)
	}
	if got := members.Config; got.MaxAge != 6*time.Second || got.SubjectDeleteMarkerTTL != time.Second {
		t.Errorf("members: expiry %v, markers %v", got.MaxAge, got.SubjectDeleteMarkerTTL)
	}
}

func TestNoListener(t *testing.T) {
	t.Parallel()
	s, err := embedded.Start(embedded.Options{Dir: t.TempDir(), Port: -1})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.Stop)
	c, err := Connect(t.Context(), s.URL(), Options{InProcess: s})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if !c.Up() {
		t.Error("connected and not up")
	}
}

func TestSendReachesListeners(t *testing.T) {
	t.Parallel()
	s := start(t)
	a, b := connect(t, s.URL()), connect(t, s.URL())
	got := make(chan string, 1)
	stop, err := b.Listen(ReportSubject("*", "*"), func(subject string, data []byte) { got <- subject + " " + string(data) })
	if err != nil {
		t.Fatal(err)
	}
	defer stop()
	if err := b.nc.Flush(); err != nil {
		t.Fatal(err)
	}
	if err := a.Send(ReportSubject("p", "r"), []byte("x")); err != nil {
		t.Fatal(err)
	}
	if g := next(t, got); g != "report.p.r x" {
		t.Errorf("got %q", g)
	}
}

// A stream that an earlier release made keeps decisions of the autoscaler too, and what it has.
func TestEnsureAddsSubjects(t *testing.T) {
	t.Parallel()
	s := start(t)
	c, err := Connect(t.Context(), s.URL(), Options{Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	old := jetstream.StreamConfig{Name: Requests, Subjects: []string{AllRequests, "other.*"}, MaxBytes: 5 << 20}
	if _, err := c.js.CreateStream(t.Context(), old); err != nil {
		t.Fatal(err)
	}
	if _, err := c.js.Publish(t.Context(), RequestSubject("p"), []byte("kept")); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if err := c.Ensure(t.Context(), Sizes{}); err != nil {
			t.Fatal(err)
		}
	}
	info, err := c.streamInfo(t.Context(), Requests)
	if err != nil {
		t.Fatal(err)
	}
	want := []string{AllRequests, "other.*", AllScales}
	if got := info.Config; !slices.Equal(got.Subjects, want) || got.MaxBytes != old.MaxBytes || info.State.Msgs != 1 {
		t.Errorf("it has subjects %v, %d bytes, %d messages", got.Subjects, got.MaxBytes, info.State.Msgs)
	}
	if err := c.Append(t.Context(), ScaleSubject("p"), []byte("{}")); err != nil {
		t.Fatal(err)
	}
	for state := (StreamState{}); state.Last < 2; {
		if state, err = c.StreamState(deadline(t), Requests); err != nil {
			t.Fatal(err)
		}
	}
}

func TestAppendFailsAtOnceWhileNATSIsAway(t *testing.T) {
	t.Parallel()
	s := startRestartable(t)
	c := connect(t, s.URL())
	if err := c.Append(t.Context(), RequestSubject("p"), []byte("1")); err != nil {
		t.Fatal(err)
	}
	for {
		state, err := c.StreamState(deadline(t), Requests)
		if err != nil {
			t.Fatal(err)
		}
		if state.Last == 1 {
			break
		}
	}
	s.Stop()
	for end := time.Now().Add(patience); c.Up(); {
		if time.Now().After(end) {
			t.Fatal("still up without a server")
		}
		time.Sleep(time.Millisecond)
	}
	if err := c.Append(t.Context(), RequestSubject("p"), []byte("2")); err == nil {
		t.Error("Append without a server succeeds")
	}
}

func TestConnectWaitsForTheServer(t *testing.T) {
	t.Parallel()
	s := startRestartable(t)
	url := s.URL()
	s.Stop()
	type result struct {
		c   *Conn
		err error
	}
	got := make(chan result, 1)
	go func() {
		c, err := Connect(deadline(t), url, Options{Log: slog.New(slog.DiscardHandler)})
		got <- result{c, err}
	}()
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if _, err := Connect(ctx, url, Options{Log: slog.New(slog.DiscardHandler)}); err == nil {
		t.Error("connected to nothing")
	}
	s.start(t)
	r := next(t, got)
	if r.err != nil {
		t.Fatal(r.err)
	}
	defer r.c.Close()
	if !r.c.Up() {
		t.Error("connected and not up")
	}
}
