package bus

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
)

func bucket(t *testing.T, c *Conn, name string) *KV {
	t.Helper()
	kv, err := c.KV(t.Context(), name)
	if err != nil {
		t.Fatal(err)
	}
	return kv
}

func mustPut(t *testing.T, kv *KV, key, value string) uint64 {
	t.Helper()
	rev, err := kv.Put(t.Context(), key, []byte(value))
	if err != nil {
		t.Fatal(err)
	}
	return rev
}

func watching(t *testing.T, kv *KV, pattern string) <-chan Entry {
	t.Helper()
	entries := make(chan Entry, 100)
	go kv.Watch(t.Context(), pattern, func(e Entry) { entries <- e })
	return entries
}

func (e Entry) String() string {
	return fmt.Sprintf("%s=%s deleted=%v expired=%v", e.Key, e.Value, e.Deleted, e.Expired)
}

func expect(t *testing.T, entries <-chan Entry, want string) {
	t.Helper()
	if got := next(t, entries).String(); got != want {
		t.Fatalf("the watcher hears %q, want %q", got, want)
	}
}

const caughtUp = "= deleted=false expired=false"

func TestKVRevisions(t *testing.T) {
	t.Parallel()
	c := connect(t, start(t).URL())
	kv := bucket(t, c, Config)
	if _, err := c.KV(t.Context(), "nothing"); !errors.Is(err, ErrNotFound) {
		t.Errorf("missing bucket: %v", err)
	}
	if _, err := kv.Get(t.Context(), "a"); !errors.Is(err, ErrNotFound) {
		t.Errorf("missing key: %v", err)
	}
	rev, err := kv.Create(t.Context(), "a", []byte("1"))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := kv.Create(t.Context(), "a", []byte("2")); !errors.Is(err, ErrExists) {
		t.Errorf("created twice: %v", err)
	}
	if _, err := kv.Update(t.Context(), "a", []byte("3"), rev); err != nil {
		t.Error(err)
	}
	if _, err := kv.Update(t.Context(), "a", []byte("4"), rev); !errors.Is(err, ErrExists) {
		t.Errorf("updated at an old revision: %v", err)
	}
	if e, err := kv.Get(t.Context(), "a"); err != nil || string(e.Value) != "3" || e.Revision != rev+1 {
		t.Errorf("got %v at %d: %v", e, e.Revision, err)
	}
	if keys, err := kv.Keys(t.Context()); err != nil || fmt.Sprint(keys) != "[a]" {
		t.Errorf("keys %v: %v", keys, err)
	}
	for range 2 {
		if err := kv.Delete(t.Context(), "a"); err != nil {
			t.Error(err)
		}
	}
	if _, err := kv.Get(t.Context(), "a"); !errors.Is(err, ErrNotFound) {
		t.Errorf("deleted key: %v", err)
	}
	if keys, err := kv.Keys(t.Context()); err != nil || len(keys) != 0 {
		t.Errorf("keys %v: %v", keys, err)
	}
}

func TestExpiryIsSeenByAWatcher(t *testing.T) {
	t.Parallel()
	c := connect(t, start(t).URL())
	err := c.ensureBucket(t.Context(), jetstream.KeyValueConfig{Bucket: "short", TTL: time.Second, LimitMarkerTTL: markerTTL})
	if err != nil {
		t.Fatal(err)
	}
	kv := bucket(t, c, "short")
	entries := watching(t, kv, ">")
	expect(t, entries, caughtUp)
	mustPut(t, kv, "router.a", "x")
	expect(t, entries, "router.a=x deleted=false expired=false")
	expect(t, entries, "router.a= deleted=true expired=true")
	mustPut(t, kv, "router.a", "y")
	expect(t, entries, "router.a=y deleted=false expired=false")
}

func TestWatchGoesOnAfterARestart(t *testing.T) {
	t.Parallel()
	s := startRestartable(t)
	kv, other := bucket(t, connect(t, s.URL()), Engines), bucket(t, connect(t, s.URL()), Engines)
	mustPut(t, other, "p.a", "1")
	mustPut(t, other, "p.b", "1")
	mustPut(t, other, "p.dead", "1")
	if err := other.Delete(t.Context(), "p.dead"); err != nil {
		t.Fatal(err)
	}
	entries := watching(t, kv, "p.*")
	expect(t, entries, "p.a=1 deleted=false expired=false")
	expect(t, entries, "p.b=1 deleted=false expired=false")
	expect(t, entries, caughtUp)

	s.restart(t)
	// One call makes one attempt, and the connection may just be on its way out.
	retry := func(call func() error) {
		t.Helper()
		for end := time.Now().Add(patience); ; time.Sleep(time.Millisecond) {
			err := call()
			if err == nil {
				return
			}
			if time.Now().After(end) {
				t.Fatal(err)
			}
		}
	}
	retry(func() error { _, err := other.Put(t.Context(), "p.a", []byte("2")); return err })
	retry(func() error { return other.Delete(t.Context(), "p.b") })
	told := next(t, entries)
	for ; told.Key == "p.a" && string(told.Value) == "2"; told = next(t, entries) { // neither a nor b as it was
	}
	if told.Key != "p.b" || !told.Deleted {
		t.Errorf("got %v, want the end of p.b", told)
	}
}

// What vanishes while nobody watches is told when the watch goes on.
func TestWatchTellsWhatVanishedMeanwhile(t *testing.T) {
	t.Parallel()
	c := connect(t, start(t).URL())
	kv := bucket(t, c, Engines)
	mustPut(t, kv, "p.a", "1")
	mustPut(t, kv, "p.b", "1")
	entries := watching(t, kv, ">")
	expect(t, entries, "p.a=1 deleted=false expired=false")
	expect(t, entries, "p.b=1 deleted=false expired=false")
	expect(t, entries, caughtUp)
	// The whole bucket is lost and made again, without b and its marker.
	if err := c.js.DeleteKeyValue(t.Context(), Engines); err != nil {
		t.Fatal(err)
	}
	if err := c.Ensure(t.Context(), Sizes{}); err != nil {
		t.Fatal(err)
	}
	mustPut(t, bucket(t, c, Engines), "p.c", "1")
	got := map[string]bool{}
	for len(got) < 3 {
		got[next(t, entries).String()] = true
	}
	for _, want := range []string{"p.a= deleted=true expired=true", "p.b= deleted=true expired=true", "p.c=1 deleted=false expired=false"} {
		if !got[want] {
			t.Errorf("the watcher did not hear %q, but %v", want, got)
		}
	}
}

// storedValue is a message of a bucket's stream.
type storedValue struct {
	jetstream.Msg
	key, value string
}

func (s storedValue) Subject() string      { return "$KV.engines." + s.key }
func (s storedValue) Data() []byte         { return []byte(s.value) }
func (s storedValue) Headers() nats.Header { return nil }

// A store that was lost gives its revisions to other values; the watcher that lists it last must tell them too.
func TestWatchTellsValuesOfAnotherStore(t *testing.T) {
	var told []string
	w := watch{prefix: "$KV.engines.", known: make(map[string]version), fn: func(e Entry) { told = append(told, e.Key+"="+string(e.Value)) }}
	list := func(key, value string, revision uint64, at time.Time) {
		if err := w.begin(1); err != nil {
			t.Fatal(err)
		}
		meta := &jetstream.MsgMetadata{Sequence: jetstream.SequencePair{Consumer: 1, Stream: revision}, Timestamp: at}
		w.each(storedValue{key: key, value: value}, meta)
	}
	first := time.Unix(1000, 0)
	list("a", "old", 7, first)
	list("a", "old", 7, first) // a reconnect
	list("a", "new", 7, first.Add(time.Second))
	if got := strings.Join(told, " "); got != "a=old = a=new" {
		t.Errorf("told %q", got)
	}
}
