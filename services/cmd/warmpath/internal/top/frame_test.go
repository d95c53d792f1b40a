package top

import (
	"flag"
	"fmt"
	"math"
	"math/rand/v2"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"charm.land/lipgloss/v2"

	"github.com/warmpath/warmpath/libs/fleet"
	"github.com/warmpath/warmpath/services/autoscaler/decide"
)

var update = flag.Bool("update", false, "write the golden frames anew")

var escapes = regexp.MustCompile("\x1b\\[[0-9;]*m")

func plain(frame string) string {
	lines := strings.Split(escapes.ReplaceAllString(frame, ""), "\n")
	for i := range lines {
		lines[i] = strings.TrimRight(lines[i], " ")
	}
	return strings.Join(lines, "\n") + "\n"
}

// ramp is a fleet whose demand grows.
func ramp() *Model {
	w := newWorld()
	w.engine("decode-0", fleet.Decode, fleet.OK)
	w.engine("decode-1", fleet.Decode, fleet.Partial)
	for i := range 4 {
		w.engine(fmt.Sprintf("prefill-%d", i), fleet.Prefill, fleet.OK)
	}
	w.engine("prefill-9", fleet.Prefill, fleet.Gone)
	w.view.Draining["prefill-3"] = true
	for i := range 60 {
		n := 1 + i/15
		w.decide(begin.Add(time.Duration(i-60)*15*time.Second), decide.On, map[decide.Role]decide.RoleDecision{
			decide.Prefill: w.prefill(n, n+(i%15)/14, float64(i)/16),
			decide.Decode:  w.decode(2+i/50, 2+i/45, .5+float64(i)/24),
		})
	}
	for s := range 12 {
		w.report("router-0", s, 0)
		w.report("router-1", s, 30)
		w.tick(s, "")
	}
	return &w.model
}

func TestFrames(t *testing.T) {
	away := ramp()
	away.Tick(begin.Add(96*time.Second), "the connection is lost")
	blind := ramp()
	blind.pools["p"].routers = nil
	last := blind.pools["p"].records[59]
	last.At, last.Blind = last.At.Add(time.Second), "routers: not heard for 20 s; nothing is taken away"
	blind.Decide(last)
	bare := newWorld()
	bare.tick(0, "")
	empty := &Model{URL: "nats://nats:4222"}
	empty.Tick(begin, "connecting")
	empty.Tick(begin.Add(7*time.Second), "connecting")
	for _, c := range []struct {
		name          string
		model         *Model
		show          Show
		width, height int
	}{
		{"ramp-80x24", ramp(), Show{}, 80, 24},
		{"ramp-160x50", ramp(), Show{Order: ByLoad}, 160, 50},
		{"ramp-by-state-80x24", ramp(), Show{Order: ByState}, 80, 24},
		{"ramp-60x12", ramp(), Show{}, 60, 12},
		{"help-80x24", ramp(), Show{Help: true}, 80, 24},
		{"away-80x24", away, Show{}, 80, 24},
		{"blind-80x24", blind, Show{}, 80, 24},
		{"no-engine-80x24", &bare.model, Show{}, 80, 24},
		{"no-nats-80x24", empty, Show{}, 80, 24},
	} {
		t.Run(c.name, func(t *testing.T) {
			p := c.model.Picture()
			got := plain(Frame(&p, c.show, c.width, c.height))
			path := filepath.Join("testdata", c.name+".txt")
			if *update {
				if err := os.WriteFile(path, []byte(got), 0o600); err != nil {
					t.Fatal(err)
				}
			}
			want, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			if got != string(want) {
				t.Errorf("got\n%s\nwant\n%s", got, want)
			}
		})
	}
}

// Whatever the size of the terminal and whatever was heard, a frame fills it and never overflows it.
func TestFramesFit(t *testing.T) {
	m := ramp()
	hostile := m.view.Engines["prefill-1"]
	hostile.Name, hostile.Why = "\x1b[2Jpre\nfill\t日本語日本語日本語\u202e"+strings.Repeat("x", 200), "why\x07"
	m.view.Engines["prefill-1"] = hostile
	r := rand.New(rand.NewPCG(1, 2))
	for range 400 {
		width, height := 1+r.IntN(220), 2+r.IntN(70)
		p := m.Picture()
		frame := Frame(&p, Show{Order: Order(r.IntN(3)), Help: r.IntN(8) == 0}, width, height)
		lines := strings.Split(frame, "\n")
		if len(lines) != height {
			t.Fatalf("%d x %d: %d lines", width, height, len(lines))
		}
		for _, line := range lines {
			if n := lipgloss.Width(line); n > width {
				t.Fatalf("%d x %d: %d cells: %q", width, height, n, line)
			}
			if bare := escapes.ReplaceAllString(line, ""); strings.ContainsAny(bare, "\x1b\x07\t\u202e") {
				t.Fatalf("a terminal would obey %q", bare)
			}
		}
	}
}

func TestAFrameWithoutHeightHasAll(t *testing.T) {
	p := ramp().Picture()
	frame := plain(Frame(&p, Show{}, 120, 0))
	for _, e := range p.Pools[0].Engines {
		if !strings.Contains(frame, e.Name) {
			t.Errorf("no %s in\n%s", e.Name, frame)
		}
	}
}

func TestSpark(t *testing.T) {
	for _, c := range []struct {
		values []float64
		top    float64
		want   []string
	}{
		{[]float64{0, 1, 4, 8}, 8, []string{"▁▁▄█"}},
		{[]float64{0, 0}, 0, []string{"▁▁"}},
		{[]float64{9, -1, math.NaN()}, 8, []string{"█▁ "}},
		{[]float64{0, 1, 8, 9, 16}, 16, []string{"   ▁█", "▁▁███"}},
	} {
		if got := spark(c.values, c.top, len(c.want)); !slices.Equal(got, c.want) {
			t.Errorf("%v of %v: %q", c.values, c.top, got)
		}
	}
}

func TestQuantity(t *testing.T) {
	for v, want := range map[float64]string{
		0: "0", .04: "0.0", 3.14: "3.1", 99.94: "99.9", 99.96: "100", 999.4: "999", 999.6: "1.0k", 99_960: "100k",
		999_499: "999k", 999_600: "1.0M", 12_345_678: "12.3M", 1e9: "1000M",
	} {
		if got := quantity(v); got != want {
			t.Errorf("%v is %q, want %q", v, got, want)
		}
	}
}
