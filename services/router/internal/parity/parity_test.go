package parity

import (
	"math/rand/v2"
	"testing"
)

// tell counts n prompts, of which every one differs or none, and returns after how many trust first changed; 0 is never.
func tell(j *Judge, n int, differ bool) (at int) {
	for i := range n {
		counted := 7
		if differ {
			counted = 8
		}
		if _, changed := j.Count(7, counted); changed && at == 0 {
			at = i + 1
		}
	}
	return at
}

func TestTrustEndsAndComesBack(t *testing.T) {
	var j Judge
	if !j.Trusted() || tell(&j, 4, true) != 0 || !j.Trusted() {
		t.Fatal("four prompts are no proof")
	}
	if tell(&j, 1, true) != 1 || j.Trusted() {
		t.Fatal("five of five are")
	}
	if at := tell(&j, 2*window, false); at < window-5 || at > window || !j.Trusted() {
		t.Fatalf("trust came back after %d prompts", at)
	}
	if tell(&j, 5, true) != 0 { // 5 of 512 are below 1 %
		t.Fatal("a few that differ among many ended trust")
	}
	if tell(&j, 1, true) != 1 {
		t.Fatal("over 1 % did not end it")
	}
}

// Against the plain reading: a list of all prompts, of which the last 512 are looked at.
func TestJudgeIsItsRule(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	for _, share := range []float64{0, .003, .006, .0095, .012, .05, 1} {
		var j Judge
		var all []bool
		trusted, changes := true, 0
		for range 4000 {
			differs := r.Float64() < share
			all = append(all, differs)
			counted := 3
			if differs {
				counted = r.IntN(3)
			}
			got, changed := j.Count(3, counted)
			latest, wrong := all[max(0, len(all)-window):], 0
			for _, d := range latest {
				if d {
					wrong++
				}
			}
			rate, want := float64(wrong)/float64(len(latest)), trusted
			if trusted && wrong >= least && rate > .01 {
				want = false
			} else if !trusted && len(latest) == window && rate < .005 {
				want = true
			}
			if got != want || changed != (want != trusted) || j.Trusted() != want {
				t.Fatalf("share %v, %d of %d differ: trusted %v, changed %v; want %v after %v", share, wrong, len(latest), got, changed, want, trusted)
			}
			if changed {
				changes++
			}
			trusted = want
		}
		if share == 0 && changes != 0 || share >= .05 && changes != 1 {
			t.Errorf("share %v: %d changes", share, changes)
		}
	}
}
