package sim

import "testing"

// Where more waits than caches hold, what an engine holds now says little of what it will hold when a prompt's turn
// comes: of the matches that were promised here then, half were gone.
func TestPromisedMatchesAreThereWhenTheirTurnComes(t *testing.T) {
	scene, err := Find(Catalogue(), "W5")
	if err != nil {
		t.Fatal(err)
	}
	o := scene.Fleet
	o.Profile, o.Pods, o.Seed = o.profile().Scale(scene.Scale), 2, 1
	var kept, promised, hit int
	o.Answered = func(a Answer) {
		kept, promised, hit = kept+min(a.Hit, a.Promised), promised+a.Promised, hit+a.Hit
	}
	w := staged{"W5", groups{62, 5, 16_000, 256, 256}, true, 200, []phase{{1.25, 60}, {10, 60}}}.workload(o.Seed)
	if _, err := Run(o, &w, nil); err != nil {
		t.Fatal(err)
	}
	t.Logf("promised %d tokens, of which %d were there; found %d", promised, kept, hit)
	if float64(kept) < .8*float64(promised) || float64(promised) < .8*float64(hit) {
		t.Errorf("promised %d tokens, of which %d were there; found %d", promised, kept, hit)
	}
}
