package fleet

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"log/slog"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/warmpath/warmpath/libs/blockkey"
	"github.com/warmpath/warmpath/libs/bus"
	"github.com/warmpath/warmpath/libs/bus/embedded"
)

const patience = 20 * time.Second

func connect(t *testing.T) *bus.Conn {
	t.Helper()
	c, _ := connectTo(t)
	return c
}

func connectTo(t *testing.T) (*bus.Conn, *embedded.Server) {
	t.Helper()
	s, err := embedded.Start(embedded.Options{Dir: t.TempDir(), MaxStore: 256 << 20})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.Stop)
	c, err := bus.Connect(t.Context(), s.URL(), bus.Options{Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	if err := c.Ensure(t.Context(), bus.Sizes{}); err != nil {
		t.Fatal(err)
	}
	return c, s
}

func watch(t *testing.T, c *bus.Conn) *Watcher {
	t.Helper()
	w, err := Watch(t.Context(), c, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	return w
}

// until waits for a view of which ok is true.
func until(t *testing.T, w *Watcher, what string, ok func(*View) bool) *View {
	t.Helper()
	timeout := time.After(patience)
	for {
		changed, v := w.Changed(), w.View()
		if ok(v) {
			return v
		}
		select {
		case <-changed:
		case <-timeout:
			t.Fatalf("never seen: %s; last view %+v", what, v)
		}
	}
}

func TestIDs(t *testing.T) {
	sum := func(s string) string { return fmt.Sprintf("%x", sha256.Sum256([]byte(s)))[:8] }
	long := "Meta-Llama/Meta-Llama-3.1-405B-Instruct-FP8-dynamic"
	for _, c := range []struct{ got, want string }{
		{PoolID("Qwen/Qwen3-32B"), "qwen-qwen3-32b-" + sum("Qwen/Qwen3-32B")},
		{PoolID(long), "meta-llama-meta-llama-3-1-405b-instruct--" + sum(long)},
		{PoolID("modèle:1"), "mod-le-1-" + sum("modèle:1")},
		{PoolID(""), "-" + sum("")},
		{EngineIDFromURL("127.0.0.1", 8000, 0), "127-0-0-1-8000-" + sum("127.0.0.1:8000") + "-r0"},
		{EngineID("vllm-0", "6ba7", 3), "vllm-0-6ba7-" + sum("vllm-0:6ba7") + "-r3"},
	} {
		if c.got != c.want {
			t.Errorf("got %q, want %q", c.got, c.want)
		}
	}
	if PoolID("a/b") == PoolID("a.b") || PoolID("A") == PoolID("a") {
		t.Error("different models share an id")
	}
}

func FuzzIDsAreSafeTokens(f *testing.F) {
	f.Add("Qwen/Qwen3-32B")
	f.Add("\xff\xfe KEY*>")
	f.Add(strings.Repeat("é", 100))
	safe := regexp.MustCompile(`^[a-z0-9-]{0,40}-[0-9a-f]{8}$`)
	f.Fuzz(func(t *testing.T, model string) {
		if got := PoolID(model); !safe.MatchString(got) {
			t.Errorf("%q becomes %q", model, got)
		}
	})
}

func TestBucketsSpread(t *testing.T) {
	var in [Buckets]int
	const engines = 64_000
	for i := range engines {
		in[Bucket(EngineID("pod", fmt.Sprint(i), 0))]++
	}
	for b, n := range in {
		if n < engines/Buckets*8/10 || n > engines/Buckets*12/10 {
			t.Errorf("bucket %d has %d of %d engines", b, n, engines)
		}
	}
	if b := Bucket("127-0-0-1-8000-79ea62aa-r0"); b != 59 {
		t.Errorf("bucket of the golden engine is %d, want 59: every stored subject would be wrong", b)
	}
}

func TestPoolOf(t *testing.T) {
	v := &View{
		Pools: map[string]Pool{"p": {ID: "p", Model: "base"}, "q": {ID: "q", Model: "other"}},
		Engines: map[string]Engine{
			"e1": {ID: "e1", Pool: "p", Models: []Model{{ID: "base"}, {ID: "alias"}, {ID: "sql", Parent: "base"}, {ID: "other", Parent: "base"}}},
			"e2": {ID: "e2", Pool: "q", Models: []Model{{ID: "other"}, {ID: "alias"}}},
			"e3": {ID: "e3", Pool: "unrecorded", Models: []Model{{ID: "ghost"}}},
		},
	}
	made := *v
	made.names = made.allNames()
	for _, v := range []*View{v, &made} {
		for _, c := range []struct {
			model, pool, lora string
			ok                bool
		}{
			{"base", "p", "", true},
			{"alias", "p", "", true}, // both have it: the first id
			{"sql", "p", "sql", true},
			{"other", "q", "", true}, // a pool's own model wins over an adapter of that name
			{"ghost", "", "", false},
			{"", "", "", false},
		} {
			pool, lora, ok := v.PoolOf(c.model)
			if pool.ID != c.pool || lora != c.lora || ok != c.ok {
				t.Errorf("%q is %q, %q, %v", c.model, pool.ID, lora, ok)
			}
		}
	}
}

func TestSeedIsMadeOnce(t *testing.T) {
	t.Parallel()
	c := connect(t)
	first, err := Seed(t.Context(), c)
	if err != nil {
		t.Fatal(err)
	}
	second, err := Seed(t.Context(), c)
	if err != nil || first != second || first == [32]byte{} {
		t.Errorf("seeds equal: %v, error: %v", first == second, err)
	}
}

func TestFirstPoolRecordStays(t *testing.T) {
	t.Parallel()
	c := connect(t)
	want := Pool{ID: PoolID("m"), Model: "m", BlockSize: 16}
	for _, size := range []int{16, 32} {
		p, err := EnsurePool(t.Context(), c, Pool{ID: want.ID, Model: "m", BlockSize: size})
		if err != nil || p != want {
			t.Errorf("with block size %d: %+v, %v", size, p, err)
		}
	}
}

func TestWatcherFollowsRecords(t *testing.T) {
	t.Parallel()
	c := connect(t)
	pool, err := EnsurePool(t.Context(), c, Pool{ID: PoolID("m"), Model: "m", BlockSize: 16})
	if err != nil {
		t.Fatal(err)
	}
	e := Engine{ID: EngineIDFromURL("h", 1, 0), Pool: pool.ID, URL: "http://h:1", Models: []Model{{ID: "m"}}, State: OK}
	if err := PutEngine(t.Context(), c, e); err != nil {
		t.Fatal(err)
	}
	w := watch(t, c)
	v := w.View()
	if got := v.InPool(pool.ID); len(got) != 1 || got[0].URL != e.URL {
		t.Fatalf("the first view has %+v", got)
	}
	if p, _, ok := v.PoolOf("m"); !ok || p != pool {
		t.Errorf("pool of m is %+v, %v", p, ok)
	}
	if err := Drain(t.Context(), c, pool.ID, e.ID, DrainRecord{Reason: "test"}); err != nil {
		t.Fatal(err)
	}
	until(t, w, "draining", func(v *View) bool { return v.Draining[e.ID] })
	if m := w.View().Drains[e.ID]; m.Pool != pool.ID || m.Reason != "test" {
		t.Errorf("the mark is %+v", m)
	}
	if err := Drain(t.Context(), c, pool.ID, e.ID, DrainRecord{Reason: "another"}); err != nil {
		t.Fatal(err)
	}
	until(t, w, "another reason", func(v *View) bool { return v.Drains[e.ID].Reason == "another" })
	if err := Undrain(t.Context(), c, pool.ID, e.ID); err != nil {
		t.Fatal(err)
	}
	until(t, w, "not draining", func(v *View) bool { return !v.Draining[e.ID] && len(v.Drains) == 0 })
	e.State = Gone
	if err := PutEngine(t.Context(), c, e); err != nil {
		t.Fatal(err)
	}
	until(t, w, "gone", func(v *View) bool { return v.Engines[e.ID].State == Gone })
	if err := DeleteEngine(t.Context(), c, pool.ID, e.ID); err != nil {
		t.Fatal(err)
	}
	until(t, w, "no engine", func(v *View) bool { return len(v.Engines) == 0 })
	if _, _, ok := w.View().PoolOf("m"); !ok {
		t.Error("a pool without engines is unknown")
	}
	if v.Engines[e.ID].State != OK {
		t.Error("a view that was handed out has changed")
	}
}

func TestUnreadableRecordIsNoRecord(t *testing.T) {
	t.Parallel()
	c := connect(t)
	kv, err := c.KV(t.Context(), bus.Engines)
	if err != nil {
		t.Fatal(err)
	}
	for key, value := range map[string]string{"p.e": "{", "p.f": `{"id":"another"}`, "nodot": `{"id":"x"}`} {
		if _, err := kv.Put(t.Context(), key, []byte(value)); err != nil {
			t.Fatal(err)
		}
	}
	if v := watch(t, c).View(); len(v.Engines) != 0 {
		t.Errorf("engines %+v", v.Engines)
	}
}

func TestAnnouncedUntilItLeaves(t *testing.T) {
	t.Parallel()
	c := connect(t)
	w := watch(t, c)
	ctx, leave := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() {
		ended <- Announce(ctx, c, func() Member { return Member{Service: "index", Instance: "a", Address: "h:1", Ready: true} })
	}()
	v := until(t, w, "the member", func(v *View) bool { return len(v.Members) == 1 })
	if m := v.Members[0]; m.Address != "h:1" || !m.Ready {
		t.Errorf("member %+v", m)
	}
	leave()
	if err := <-ended; err != nil {
		t.Error(err)
	}
	until(t, w, "nobody", func(v *View) bool { return len(v.Members) == 0 })
	if err := Announce(t.Context(), c, func() Member { return Member{} }); err == nil {
		t.Error("a nameless member is announced")
	}
}

func TestViewStaysWhileNATSIsAway(t *testing.T) {
	t.Parallel()
	c, server := connectTo(t)
	e := Engine{ID: EngineIDFromURL("h", 1, 0), Pool: "p", State: OK}
	if err := PutEngine(t.Context(), c, e); err != nil {
		t.Fatal(err)
	}
	go Announce(t.Context(), c, func() Member { return Member{Service: "index", Instance: "a"} })
	w := watch(t, c)
	until(t, w, "the member", func(v *View) bool { return len(v.Members) == 1 })
	server.Stop()
	for end := time.Now().Add(patience); c.Up(); time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal("still up without a server")
		}
	}
	if v := w.View(); len(v.Members) != 1 || len(v.Engines) != 1 {
		t.Errorf("without NATS the view is %+v", v)
	}
}

// An engine that begins to serve another model moves: that its old record goes says nothing about the new one.
func TestEngineThatMovedStays(t *testing.T) {
	t.Parallel()
	c := connect(t)
	e := Engine{ID: EngineIDFromURL("h", 1, 0), Pool: "old", State: OK}
	w := watch(t, c)
	for _, pool := range []string{"old", "new"} {
		e.Pool = pool
		if err := PutEngine(t.Context(), c, e); err != nil {
			t.Fatal(err)
		}
	}
	if err := DeleteEngine(t.Context(), c, "old", e.ID); err != nil {
		t.Fatal(err)
	}
	marker := Engine{ID: EngineIDFromURL("h", 2, 0), Pool: "new", State: OK}
	if err := PutEngine(t.Context(), c, marker); err != nil {
		t.Fatal(err)
	}
	v := until(t, w, "the marker", func(v *View) bool { _, ok := v.Engines[marker.ID]; return ok })
	if got := v.Engines[e.ID].Pool; got != "new" {
		t.Errorf("after its old record went, the engine is in pool %q", got)
	}
}

// NATS may lose the seed; whoever uses it puts it back, and hears when another is in force.
func TestSeedIsKept(t *testing.T) {
	t.Parallel()
	c := connect(t)
	ours := blockkey.Seed{1}
	if err := KeepSeed(t.Context(), c, ours); err != nil {
		t.Fatal(err)
	}
	if got, err := Seed(t.Context(), c); err != nil || got != ours {
		t.Errorf("the seed in force is another: %v", err)
	}
	if err := KeepSeed(t.Context(), c, ours); err != nil {
		t.Error(err)
	}
	if err := KeepSeed(t.Context(), c, blockkey.Seed{2}); !errors.Is(err, ErrOtherSeed) {
		t.Errorf("another seed: %v", err)
	}
}
