package plane

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/warmpath/warmpath/libs/blockkey"
	"github.com/warmpath/warmpath/libs/fleet"
	"github.com/warmpath/warmpath/libs/kvwire"
	eventsv1 "github.com/warmpath/warmpath/proto/warmpath/events/v1"
)

// The tests' own executable plays the roles.
func TestMain(m *testing.M) {
	if len(os.Args) == 3 && os.Args[1] == "role" {
		if err := Serve(context.Background(), os.Args[2], os.Stdin, os.Stdout); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		return
	}
	os.Exit(m.Run())
}

// small is every part in miniature. Each part itself ends with an error where the index is not the truth.
func small(t *testing.T, parts ...string) Options {
	t.Helper()
	path, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	return Options{Parts: parts, Self: []string{path, "role"}, Engines: 2, Blocks: 512, Running: 4, Rate: 2000, Seconds: 1,
		Resident: 4096, Fleet: 64, ShardRate: 500, FullBlocks: 512, Streams: 4}
}

func measure(t *testing.T, part string) *Figures {
	t.Helper()
	var f Figures
	if err := Run(t.Context(), small(t, part), &f); err != nil {
		t.Fatal(err)
	}
	var table strings.Builder
	if err := f.Table(&table); err != nil {
		t.Fatal(err)
	}
	t.Log("\n" + table.String())
	return &f
}

func TestLive(t *testing.T) {
	r := measure(t, "live").Live
	if !r.Equal || r.Lost != 0 || r.Engines != 2 || r.Ops <= 0 {
		t.Errorf("%+v", r)
	}
	if b := r.Bytes; b.Deltas <= 0 || b.Deltas > b.NATS || b.VLLM <= 0 {
		t.Errorf("bytes an operation: %+v", b)
	}
}

func TestStreams(t *testing.T) {
	r := measure(t, "streams").Streams
	if len(r.tries) < 4 || r.engines != 4 {
		t.Errorf("%+v", r)
	}
}

func TestShard(t *testing.T) {
	if r := measure(t, "shard").Shard; r.Ops <= 0 || r.Entries < 500 || r.engines < 1 {
		t.Errorf("%+v", r)
	}
}

func TestRestart(t *testing.T) {
	if r := measure(t, "restart").Restart; !r.Equal || r.Blocks < 3000 || r.Ready <= 0 {
		t.Errorf("%+v", r)
	}
}

func TestTakeover(t *testing.T) {
	if r := measure(t, "takeover").Takeover; r.Engines != 2 || r.Partial != 0 || r.blocks < 900 {
		t.Errorf("%+v", r)
	}
}

// A comparison that cannot fail proves nothing.
func TestWrongDigestsAreNoticed(t *testing.T) {
	for _, part := range []string{"restart", "shard"} {
		o := small(t, part)
		o.wrongDigests = true
		if err := Run(t.Context(), o, &Figures{}); !errors.Is(err, errNotEqual) {
			t.Errorf("%s with falsified digests: %v", part, err)
		}
	}
}

// A live index that lacks what one engine holds, or has what it does not hold, is not equal.
func TestUnequalEnginesAreNoticed(t *testing.T) {
	ctx := t.Context()
	l, err := newLab(ctx, small(t).Self)
	if err != nil {
		t.Fatal(err)
	}
	defer l.close()
	p, err := l.newPlane(ctx, enginesConfig{Count: 2, Blocks: 256, Running: 2, Seed: 1})
	if err != nil {
		t.Fatal(err)
	}
	if v, err := p.verify(0); err != nil || !v.Equal || v.Chains < 4 || v.Blocks < 400 {
		t.Fatalf("%+v, %v", v, err)
	}
	p.ingest.Kill() // what is published from now on reaches nobody
	if _, err := p.play(1000, .3); err != nil {
		t.Fatal(err)
	}
	var v verdict
	if err := p.engines.Ask("verify", engineCall{Index: p.address, Seconds: .1}, &v); err != nil || v.Equal || v.Why == "" {
		t.Errorf("%+v, %v", v, err)
	}
}

// What other programs read is named as they expect, and nothing else is there.
func TestShapeOfTheFigures(t *testing.T) {
	data, err := json.Marshal(Figures{Live: &Live{}, Streams: &Streams{}, Shard: &Shard{}, Restart: &Restart{}, Takeover: &Takeover{}})
	if err != nil {
		t.Fatal(err)
	}
	var got map[string]map[string]any
	if err := json.Unmarshal(data, &got); err != nil {
		t.Fatal(err)
	}
	want := map[string]string{
		"live":         "block_ops_per_s bytes_per_op cores engines index_equals_truth lag_ms lost seconds",
		"streams_1000": "lag_p99_ms max_ops_per_s",
		"shard_10000":  "entries lag_p99_ms ops_per_s",
		"restart":      "blocks index_equals_truth ready_s",
		"takeover":     "engines partial s",
	}
	for name, fields := range want {
		if have := strings.Join(slices.Sorted(maps.Keys(got[name])), " "); have != fields {
			t.Errorf("%s has %s, want %s", name, have, fields)
		}
	}
	for name, fields := range map[string]string{"lag_ms": "max p50 p99", "cores": "engines index ingest nats", "bytes_per_op": "deltas nats vllm"} {
		if have := strings.Join(slices.Sorted(maps.Keys(got["live"][name].(map[string]any))), " "); have != fields {
			t.Errorf("%s has %s, want %s", name, have, fields)
		}
	}
	if len(got) != len(want) {
		t.Errorf("%d parts, want %d", len(got), len(want))
	}
}

func TestPartsAreResumedAndNamed(t *testing.T) {
	o := small(t, "restart", "live")
	o.Before = func(part string) { t.Errorf("%s is measured again", part) }
	if err := Run(t.Context(), o, &Figures{Live: &Live{}, Restart: &Restart{}}); err != nil {
		t.Error(err)
	}
	if err := Run(t.Context(), small(t, "lief"), &Figures{}); !errors.Is(err, errPart) {
		t.Errorf("a part that is not there: %v", err)
	}
}

func TestPercentilesCountOperations(t *testing.T) {
	deltas := []lag{{received: 3 * time.Millisecond, ops: 1}, {received: time.Millisecond, ops: 98}, {received: 2 * time.Millisecond, ops: 1}}
	got := percentilesOf(deltas, func(d lag) time.Duration { return d.received })
	if want := (percentiles{P50: 1, P99: 2, Max: 3}); got != want {
		t.Errorf("%+v, want %+v", got, want)
	}
	if n := operations([]*eventsv1.Run{{Copy: eventsv1.Change_CHANGE_ADDED, Hashes: make([]uint64, 3), Keys: make([]uint64, 3)},
		{Copy: eventsv1.Change_CHANGE_REMOVED, Keys: make([]uint64, 2)}, {Keys: make([]uint64, 7)}}); n != 5 {
		t.Errorf("%d operations, want 5", n)
	}
}

// An engine's truth comes from its block pool; its chains are those that its prompts' tokens give.
func TestTruthIsWhatThePoolHolds(t *testing.T) {
	wire, err := kvwire.Listen("tcp://127.0.0.1:0", "", kvwire.PublisherOptions{})
	if err != nil {
		t.Fatal(err)
	}
	defer wire.Close()
	scope := blockkey.Scope{Pool: fleet.PoolID(model), BlockSize: blockSize}
	e := newEngine("a", wire, scope, 256, 2, 1)
	e.fill()
	truth := e.truth(0)
	if cached := len(e.core.Cached()); len(truth.keys) == 0 || len(truth.keys) > cached {
		t.Fatalf("%d keys of %d cached blocks", len(truth.keys), cached)
	}
	in := map[uint64]bool{}
	for _, chain := range truth.chains {
		if n := depth(truth.keys, chain); int(n) != len(chain) {
			t.Errorf("a chain of %d blocks of which %d are held", len(chain), n)
		}
		for _, key := range chain {
			in[key] = true
		}
	}
	if len(in) != len(truth.keys) {
		t.Errorf("the chains have %d blocks, the engine %d", len(in), len(truth.keys))
	}
	first := blockkey.Keys(nil, scope, e.prompt(), nil)
	if len(first) < leastPrompt || len(first) > mostPrompt {
		t.Errorf("a prompt of %d blocks", len(first))
	}
}

// A ring's churn and its snapshot describe the same blocks.
func TestRingsHoldWhatTheirLogSays(t *testing.T) {
	r := newRing("a", 1, 1000)
	log := map[uint64]bool{}
	fold := func(runs ...*eventsv1.Run) {
		for _, run := range runs {
			for _, key := range run.Keys {
				if log[key] == (run.Copy == eventsv1.Change_CHANGE_ADDED) {
					t.Fatalf("key %x comes or goes twice", key)
				}
				if log[key] = true; run.Copy == eventsv1.Change_CHANGE_REMOVED {
					delete(log, key)
				}
			}
		}
	}
	for run := range r.snapshot {
		fold(run)
	}
	for range 100 {
		runs, ops := r.churn()
		if n := operations(runs); n != ops {
			t.Fatalf("%d operations, said %d", n, ops)
		}
		fold(runs...)
	}
	if !maps.Equal(log, r.held()) || len(log) != r.blocks || r.blocks > 1000 {
		t.Errorf("the log gives %d blocks, the ring holds %d and says %d", len(log), len(r.held()), r.blocks)
	}
	if count, digest := r.digest(); count != r.blocks || digest == 0 {
		t.Errorf("digest of %d blocks, there are %d", count, r.blocks)
	}
	if chain := r.chain(r.oldest); depth(r.held(), chain) != uint32(len(chain)) {
		t.Errorf("its oldest chain is not held")
	}
}
