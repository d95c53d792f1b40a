package bus

import (
	"context"
	"errors"
	"strconv"
	"strings"
	"testing"
	"time"
)

func TestFollowGoesOnAfterARestart(t *testing.T) {
	t.Parallel()
	s := startRestartable(t)
	c, w := connect(t, s.URL()), connect(t, s.URL()).Writer(EventSubject("p", 2))
	noise := connect(t, s.URL()).Writer(EventSubject("p", 9))
	for i := range 10 {
		mustPublish(t, w, strconv.Itoa(i))
		mustPublish(t, noise, "noise")
	}
	got := make(chan Message, 100)
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() {
		ended <- c.Follow(ctx, Events, []string{EventSubject("*", 2), EventSubject("*", 3)}, 11, func(m Message) { got <- m })
	}()
	expect := func(i int) {
		t.Helper()
		m := next(t, got)
		if string(m.Data) != strconv.Itoa(i) || m.Seq != uint64(2*i+1) || m.Subject != EventSubject("p", 2) || m.Time.IsZero() {
			t.Fatalf("got %q at %d of %s, want %d at %d", m.Data, m.Seq, m.Subject, i, 2*i+1)
		}
		if i < 10 && m.Pending != uint64(9-i) {
			t.Errorf("message %d: %d pending, want %d", i, m.Pending, 9-i)
		}
	}
	for i := 5; i < 10; i++ {
		expect(i)
	}
	for i := 10; i < 30; i++ {
		if i%7 == 0 {
			s.restart(t)
		}
		mustPublish(t, w, strconv.Itoa(i))
		mustPublish(t, noise, "noise")
		expect(i)
	}
	cancel()
	if err := next(t, ended); err != nil {
		t.Errorf("Follow ends with %v", err)
	}
}

func TestFollowSeesThatTheStreamIsAnother(t *testing.T) {
	t.Parallel()
	s := startRestartable(t)
	c := connect(t, s.URL())
	w := c.Writer(EventSubject("p", 2))
	for i := range 3 {
		mustPublish(t, w, strconv.Itoa(i))
	}
	ends := func(from uint64, seen chan<- Message) <-chan error {
		ended := make(chan error, 1)
		go func() {
			ended <- c.Follow(t.Context(), Events, nil, from, func(m Message) { seen <- m })
		}()
		return ended
	}
	if err := next(t, ends(5, nil)); !errors.Is(err, ErrStreamReset) {
		t.Errorf("a position behind the end: %v", err)
	}
	seen := make(chan Message, 10)
	ended := ends(4, seen) // the very end: waits
	mustPublish(t, w, "3")
	next(t, seen)

	// Another store takes its place, with more messages: only the stream's birth tells.
	other := startRestartable(t)
	anew := connect(t, other.URL()).Writer(EventSubject("p", 2))
	for i := range 10 {
		mustPublish(t, anew, strconv.Itoa(i))
	}
	other.Stop()
	s.Stop()
	s.dir = other.dir
	s.start(t)
	if err := next(t, ended); !errors.Is(err, ErrStreamReset) {
		t.Errorf("a recreated stream: %v", err)
	}
	if len(seen) != 0 {
		t.Errorf("%d messages of the new stream were delivered as if of the old", len(seen))
	}
}

// A reading of a stretch ends by itself, wherever the stretch ends.
func TestReadEndsWithItsSpan(t *testing.T) {
	t.Parallel()
	s := startRestartable(t)
	c := connect(t, s.URL())
	w, noise := c.Writer(EventSubject("p", 2)), c.Writer(EventSubject("p", 9))
	for i := range 10 { // sequences 1, 3, ... 19
		mustPublish(t, w, strconv.Itoa(i))
		mustPublish(t, noise, "noise")
	}
	state, err := c.StreamState(t.Context(), Events)
	if err != nil {
		t.Fatal(err)
	}
	for span, want := range map[[2]uint64][2]uint64{
		{0, 20}: {1, 19}, {2, 20}: {3, 19}, {3, 3}: {3, 3}, {3, 4}: {3, 3}, {4, 4}: {}, {20, 20}: {}, {9, 8}: {}, {4, 99}: {5, 19}, {21, 99}: {},
	} {
		var first, last, n uint64
		err := c.Read(deadline(t), Span{Stream: Events, Subjects: []string{EventSubject("p", 2)}, From: span[0], To: span[1], Created: state.Created}, func(m Message) {
			if n++; first == 0 {
				first = m.Seq
			}
			last = m.Seq
		})
		if err != nil || [2]uint64{first, last} != want || n > 0 && n != (last-first)/2+1 {
			t.Errorf("span %v: %d messages from %d to %d (%v), want %v", span, n, first, last, err, want)
		}
	}
	err = c.Read(deadline(t), Span{Stream: Events, To: 20, Created: state.Created.Add(time.Second)}, func(Message) { t.Error("read of another stream") })
	if !errors.Is(err, ErrStreamReset) {
		t.Errorf("another stream: %v", err)
	}
	n := 0
	err = c.Read(deadline(t), Span{Stream: Events, To: 20}, func(Message) {
		if n++; n == 7 {
			s.restart(t)
		}
	})
	if err != nil || n != 20 {
		t.Errorf("%d messages across a restart: %v", n, err)
	}
}

// What retention takes away while a stretch is read never comes, and the reading ends all the same.
func TestReadSince(t *testing.T) {
	t.Parallel()
	s := startRestartable(t)
	c := connect(t, s.URL())
	w := c.Writer(EventSubject("p", 2))
	var stored []time.Time
	for i := range 6 {
		mustPublish(t, w, strconv.Itoa(i))
	}
	read := func(span Span) (got string) {
		t.Helper()
		span.Stream, span.To = Events, 6
		if err := c.Read(deadline(t), span, func(m Message) {
			got += string(m.Data)
			stored = append(stored, m.Time)
		}); err != nil {
			t.Fatal(err)
		}
		return got
	}
	if got := read(Span{}); got != "012345" {
		t.Fatalf("all are %s", got)
	}
	for i, at := range stored[:6] {
		if got, want := read(Span{Since: at}), "012345"[i:]; got != want {
			t.Errorf("since %d: %s", i, got)
		}
	}
	if got := read(Span{Since: stored[5].Add(time.Nanosecond)}); got != "" {
		t.Errorf("since after the last: %s", got)
	}
	if got := read(Span{Since: stored[1], From: 5}); got != "45" {
		t.Errorf("from the fifth: %s", got)
	}
}

// A reader that began by time goes on by sequence: nothing comes twice.
func TestReadSinceGoesOnAfterARestart(t *testing.T) {
	t.Parallel()
	s := startRestartable(t)
	c, w := connect(t, s.URL()), connect(t, s.URL()).Writer(EventSubject("p", 2))
	got := make(chan Message, 100)
	mustPublish(t, w, "0")
	go func() {
		_ = c.Read(t.Context(), Span{Stream: Events, Since: time.Now().Add(-time.Hour)}, func(m Message) { got <- m })
	}()
	for i := range 6 {
		if m := next(t, got); string(m.Data) != strconv.Itoa(i) {
			t.Fatalf("got %s, want %d", m.Data, i)
		}
		if i%2 == 0 {
			s.restart(t)
		}
		mustPublish(t, w, strconv.Itoa(i+1))
	}
}

func TestReadEndsThoughMessagesAreDiscarded(t *testing.T) {
	t.Parallel()
	c := connect(t, start(t).URL())
	w := c.Writer(EventSubject("p", 2))
	for range 40 {
		mustPublish(t, w, strings.Repeat("x", 1<<20-1<<10)) // more than is read ahead
	}
	stream, err := c.js.Stream(t.Context(), Events)
	if err != nil {
		t.Fatal(err)
	}
	n := 0
	err = c.Read(deadline(t), Span{Stream: Events, To: 40}, func(Message) {
		if n++; n > 1 {
			return
		}
		if err := stream.Purge(t.Context()); err != nil {
			t.Error(err)
		}
	})
	if err != nil || n == 0 || n == 40 {
		t.Errorf("%d messages: %v", n, err)
	}
}

func TestPending(t *testing.T) {
	t.Parallel()
	c := connect(t, start(t).URL())
	w := c.Writer(EventSubject("p", 2))
	for i := range 5 {
		mustPublish(t, w, strconv.Itoa(i))
	}
	for from, want := range map[uint64]uint64{0: 5, 1: 5, 4: 2, 6: 0} {
		if n, err := c.Pending(t.Context(), Events, []string{AllEvents}, from); err != nil || n != want {
			t.Errorf("from %d: %d pending (%v), want %d", from, n, err, want)
		}
	}
	if n, err := c.Pending(t.Context(), Events, []string{EventSubject("*", 3)}, 1); err != nil || n != 0 {
		t.Errorf("other bucket: %d pending (%v)", n, err)
	}
}
