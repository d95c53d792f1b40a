// Package eventlog converts between the runs of package prefix and those of the event log's messages.
//
// It exists so that the writer (ingest) and the readers (index, and whoever folds the log after the fact) agree on one
// reading. It knows no streams and no order of messages.
package eventlog

import (
	"fmt"

	"github.com/warmpath/warmpath/libs/prefix"
	eventsv1 "github.com/warmpath/warmpath/proto/warmpath/events/v1"
)

// Version is the layout of messages that we write, and the newest that we read. Layout 1 had no runs with parents, and
// is read as it was.
const Version = 2

// Logged converts a run for the log. It shares the slices. The numbers of prefix and of the log are the same.
func Logged(r *prefix.Run) *eventsv1.Run {
	logged := &eventsv1.Run{
		Copy: eventsv1.Change(r.Copy), Gpu: eventsv1.Change(r.GPU), Any: eventsv1.Change(r.Any),
		Tier: eventsv1.Tier(r.Tier), Group: uint32(r.Group), BlockSize: uint32(r.BlockSize),
		Hashes: r.Hashes, Keys: r.Keys, Parents: r.Parents, Shown: r.Shown, Split: r.Split, Clear: r.Clear,
	}
	if r.HasParent {
		logged.Parent = &r.Parent
	}
	return logged
}

// Run converts a logged run. It shares the slices. A change or tier of no known number is an error.
func Run(r *eventsv1.Run) (prefix.Run, error) {
	for _, c := range []eventsv1.Change{r.Copy, r.Gpu, r.Any} {
		if c < eventsv1.Change_CHANGE_UNSPECIFIED || c > eventsv1.Change_CHANGE_REMOVED {
			return prefix.Run{}, fmt.Errorf("change %d is unknown", c)
		}
	}
	if r.Tier < eventsv1.Tier_TIER_UNSPECIFIED || r.Tier > eventsv1.Tier_TIER_STORAGE {
		return prefix.Run{}, fmt.Errorf("tier %d is unknown", r.Tier)
	}
	return prefix.Run{
		Copy: prefix.Change(r.Copy), GPU: prefix.Change(r.Gpu), Any: prefix.Change(r.Any), Tier: prefix.Tier(r.Tier),
		Group: int(r.Group), Parent: r.GetParent(), HasParent: r.Parent != nil, BlockSize: int(r.BlockSize),
		Hashes: r.Hashes, Keys: r.Keys, Parents: r.Parents, Shown: r.Shown, Split: r.Split, Clear: r.Clear,
	}, nil
}
