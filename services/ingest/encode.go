package ingest

import (
	"github.com/warmpath/warmpath/libs/prefix"
	eventsv1 "github.com/warmpath/warmpath/proto/warmpath/events/v1"
)

const (
	maxMessage = 256 << 10 // bytes of one message of the event log
	headroom   = 2 << 10   // of them for what is not a run
)

// runSize is at least what a run takes in a message.
func runSize(r *prefix.Run) int {
	return 56 + 8*(len(r.Hashes)+len(r.Keys)+len(r.Parents)+len(r.Shown))
}

func deltaPart(engine string, d *eventsv1.Delta) *eventsv1.Part {
	return &eventsv1.Part{Engine: engine, Body: &eventsv1.Part_Delta{Delta: d}}
}

func resetPart(engine, reason string) *eventsv1.Part {
	return &eventsv1.Part{Engine: engine, Body: &eventsv1.Part_Reset_{Reset_: &eventsv1.Reset{Reason: reason}}}
}

func snapshotPart(engine string, s *eventsv1.Snapshot) *eventsv1.Part {
	return &eventsv1.Part{Engine: engine, Body: &eventsv1.Part_Snapshot{Snapshot: s}}
}

func digestPart(engine string, d *eventsv1.Digest) *eventsv1.Part {
	return &eventsv1.Part{Engine: engine, Body: &eventsv1.Part_Digest{Digest: d}}
}

func claimPart() *eventsv1.Part {
	return &eventsv1.Part{Body: &eventsv1.Part_Claim{Claim: &eventsv1.Claim{}}}
}
