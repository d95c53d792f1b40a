package ingest

import (
	"testing"
	"testing/synctest"
	"time"

	"github.com/warmpath/warmpath/libs/prefix"
)

// An engine whose frames follow one another is checked once a minute; once it is quiet, or not all is well, as often
// as any.
func TestBusyEnginesAreCheckedSeldom(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSession(rank{}, newCache("e", prefix.EngineOptions{}, func() {}), quiet(), newMetrics(nil), times{}.withDefaults())
		checks := func(last time.Duration, follows bool) (n int) {
			for end := time.Now().Add(last); time.Now().Before(end); {
				before := s.checked
				wait := s.routine(t.Context())
				if s.checked != before {
					n++
				}
				if wait <= 0 || wait > s.times.check {
					t.Fatalf("looks again in %v", wait)
				}
				time.Sleep(wait / 2)
				if follows {
					s.followed = time.Now()
				}
				time.Sleep(wait - wait/2)
			}
			return n
		}
		if n := checks(time.Minute, false); n != 4 {
			t.Errorf("%d checks in a quiet minute, want 4", n)
		}
		if n := checks(10*time.Minute, true); n < 9 || n > 11 {
			t.Errorf("%d checks in ten busy minutes, want about one a minute", n)
		}
		s.checked, s.followed = time.Now(), time.Now()
		last := time.Now()
		for s.checked == last {
			time.Sleep(s.routine(t.Context()))
		}
		if found := s.checked.Sub(last); found > 15*time.Second {
			t.Errorf("a last frame that is lost is found after %v", found)
		}
		s.life.partial = "a gap"
		if n := checks(time.Minute, true); n != 4 {
			t.Errorf("%d checks in a busy minute of a partial engine, want 4", n)
		}
	})
}
