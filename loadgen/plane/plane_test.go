package plane

import (
	"context"
	"errors"
	"fmt"
	"os"
	"testing"
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

// small is every part in miniature.
func small(t *testing.T, parts ...string) Options {
	t.Helper()
	path, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	return Options{Parts: parts, Self: []string{path, "role"}, Engines: 2, Blocks: 512, Running: 4, Rate: 2000, Seconds: 1, Resident: 4096, Fleet: 64, ShardRate: 500,
		FullBlocks: 512, Streams: 4}
}

func TestLive(t *testing.T) {
	var f Figures
	if err := Run(t.Context(), small(t, "live"), &f); err != nil {
		t.Fatal(err)
	}
	r := f.Live
	t.Logf("%+v", r)
	if !r.Equal || r.Lost != 0 || r.Engines != 2 {
		t.Errorf("equal %v, lost %d, %d engines", r.Equal, r.Lost, r.Engines)
	}
}

func TestRestart(t *testing.T) {
	var f Figures
	if err := Run(t.Context(), small(t, "restart"), &f); err != nil {
		t.Fatal(err)
	}
	t.Logf("%+v", f.Restart)
	if r := f.Restart; !r.Equal || r.Blocks < 3000 || r.Ready <= 0 {
		t.Errorf("%+v", r)
	}
}

func TestShard(t *testing.T) {
	var f Figures
	if err := Run(t.Context(), small(t, "shard"), &f); err != nil {
		t.Fatal(err)
	}
	t.Logf("%+v", f.Shard)
	if r := f.Shard; r.Ops <= 0 || r.Entries < 500 {
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

func TestTakeover(t *testing.T) {
	var f Figures
	if err := Run(t.Context(), small(t, "takeover"), &f); err != nil {
		t.Fatal(err)
	}
	t.Logf("%+v", f.Takeover)
	if r := f.Takeover; r.Engines != 2 || r.Partial != 0 || r.Seconds <= 0 {
		t.Errorf("%+v", r)
	}
}

func TestStreams(t *testing.T) {
	var f Figures
	if err := Run(t.Context(), small(t, "streams"), &f); err != nil {
		t.Fatal(err)
	}
	t.Logf("%+v", f.Streams)
}
