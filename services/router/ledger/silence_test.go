package ledger

import (
	"testing"
	"time"

	"github.com/warmpath/warmpath/libs/fleet"
)

// hang is a pool with requests on its engine e00, which e01 has nothing of.
type hang struct {
	t    *testing.T
	p    *Pool
	view *fleet.View
	now  time.Time
	off  map[string]int // times that each request was stopped
}

func newHang(t *testing.T) *hang {
	return &hang{t: t, p: warmPool(time.Unix(50_000, 0)), view: viewOf(2), now: time.Unix(50_000, 0), off: map[string]int{}}
}

// send books a request on e00.
func (h *hang) send(name string, streams bool) *Reservation {
	w := wishOf(keysOf(1, 20), nil, streams)
	w.Without = map[string]bool{"e01": true}
	r, _ := h.p.Reserve(h.view, w, h.now)
	r.OnStall(func() { h.off[name]++ })
	return r
}

// after lets time pass and watches; it returns how many probes are wanted.
func (h *hang) after(d time.Duration) int {
	h.now = h.now.Add(d)
	probe, stop := h.p.Watch(h.now)
	for _, f := range stop {
		f()
	}
	return len(probe)
}

func (h *hang) probed(lives bool) (ejected bool) {
	ejected, stop := h.p.Probed("e00", lives, h.now)
	for _, f := range stop {
		f()
	}
	return ejected
}

// chosen is who gets a new request now.
func (h *hang) chosen() string {
	w := wishOf(keysOf(1, 20), map[string]uint32{"e00": 20}, true) // which e00 would be the best for
	r, _ := h.p.Reserve(h.view, w, h.now)
	defer r.Release(h.now, false, false)
	return r.Engine.ID
}

func TestAnEngineThatSaysNothingIsSuspectedProbedAndEjected(t *testing.T) {
	h := newHang(t)
	streaming, waiting, whole := h.send("streaming", true), h.send("waiting", true), h.send("whole", false)
	streaming.FirstByte(h.now)
	if h.after(leastPatience) != 0 || h.chosen() != "e00" {
		t.Error("suspected at once")
	}
	if h.after(time.Second) != 1 || h.chosen() != "e01" {
		t.Error("not suspected in time, or chosen all the same")
	}
	if h.after(time.Second) != 0 || h.after(5*time.Second) != 0 {
		t.Error("asked again before it has answered")
	}
	if !h.probed(false) || h.off["waiting"] != 1 || h.off["whole"] != 1 || h.off["streaming"] != 0 {
		t.Errorf("a probe that fails: stopped %v", h.off)
	}
	waiting.Release(h.now, false, false)
	whole.Release(h.now, false, false)
	h.after(IdleLimit)
	if h.probed(false); h.off["streaming"] != 1 {
		t.Errorf("after the idle limit: stopped %v", h.off)
	}
	streaming.Release(h.now, true, false)
	if h.after(time.Minute) != 1 || h.chosen() != "e01" {
		t.Error("back, or half open, before it answers a probe")
	}
	if h.probed(true); h.chosen() != "e00" {
		t.Error("not tried again though it answers probes")
	}
}

func TestSignsOfLifeEndTheSuspicion(t *testing.T) {
	for name, sign := range map[string]func(h *hang, r *Reservation){
		"a token": func(h *hang, r *Reservation) { r.Token(1, 0) },
		"a first byte elsewhere in it": func(h *hang, _ *Reservation) {
			h.p.all["e00"].waiting[0].FirstByte(h.now)
		},
		"its own metrics": func(h *hang, _ *Reservation) { h.p.Scraped("e00", Scrape{Tokens: 12}, h.now) },
	} {
		h := newHang(t)
		r := h.send("streaming", true)
		h.send("waiting", true)
		r.FirstByte(h.now)
		h.p.Scraped("e00", Scrape{Tokens: 11}, h.now)
		if h.after(10*time.Second) != 1 {
			t.Errorf("%s: not suspected", name)
		}
		h.p.Scraped("e00", Scrape{Tokens: 11}, h.now)
		if h.chosen() != "e01" {
			t.Errorf("%s: metrics that stand still are no sign of life", name)
		}
		sign(h, r)
		h.after(time.Millisecond)
		if h.chosen() != "e00" || len(h.off) != 0 {
			t.Errorf("%s is no sign of life", name)
		}
	}
}

// The HTTP server of an engine may live while its core hangs: streams show it.
func TestAnEngineThatAnswersProbesButNoRequestsIsEjected(t *testing.T) {
	h := newHang(t)
	h.send("waiting", true)
	for range 3 {
		h.after(6 * time.Second)
		if h.probed(true); h.chosen() != "e01" {
			t.Error("a probe alone makes up for streams that wait")
		}
	}
	if len(h.off) != 0 {
		t.Error("stopped though it may live")
	}
	h.after(stuckAfter)
	if h.off["waiting"] != 1 {
		t.Errorf("stopped %v", h.off)
	}
}

// Answers that do not stream come when they are done: an engine with nothing else is not taken to hang while it answers.
func TestLongWholeAnswersAreNoSilence(t *testing.T) {
	h := newHang(t)
	h.send("whole", false)
	for range 100 {
		if h.after(time.Second) > 0 {
			h.probed(true)
		}
		if h.chosen() != "e00" && h.p.all["e00"].health.asked {
			t.Fatal("kept away though it answers")
		}
	}
	if len(h.off) != 0 {
		t.Errorf("stopped %v", h.off)
	}
}

func TestNothingIsExpectedOfAnIdleEngine(t *testing.T) {
	h := newHang(t)
	r := h.send("done", true)
	r.FirstByte(h.now)
	r.Release(h.now, true, true)
	if h.after(time.Hour) != 0 || h.chosen() != "e00" {
		t.Error("an idle engine is suspected")
	}
	h.send("new", true)
	if h.after(time.Second) != 0 {
		t.Error("the time that it was idle counts")
	}
}
