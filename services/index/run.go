package index

import (
	"fmt"

	"github.com/warmpath/warmpath/libs/prefix"
	eventsv1 "github.com/warmpath/warmpath/proto/warmpath/events/v1"
)

// fromLog converts a logged run. It shares the slices.
func fromLog(r *eventsv1.Run) (prefix.Run, error) {
	for _, c := range []eventsv1.Change{r.Copy, r.Gpu, r.Any} {
		if c < eventsv1.Change_CHANGE_UNSPECIFIED || c > eventsv1.Change_CHANGE_REMOVED {
			return prefix.Run{}, fmt.Errorf("change %d is unknown", c)
		}
	}
	if r.Tier < eventsv1.Tier_TIER_UNSPECIFIED || r.Tier > eventsv1.Tier_TIER_STORAGE {
		return prefix.Run{}, fmt.Errorf("tier %d is unknown", r.Tier)
	}
	return prefix.Run{
		// The numbers of the log are those of package prefix.
		Copy: prefix.Change(r.Copy), GPU: prefix.Change(r.Gpu), Any: prefix.Change(r.Any), Tier: prefix.Tier(r.Tier),
		Group: int(r.Group), Parent: r.GetParent(), HasParent: r.Parent != nil, BlockSize: int(r.BlockSize),
		Hashes: r.Hashes, Keys: r.Keys, Shown: r.Shown, Split: r.Split, Clear: r.Clear,
	}, nil
}

// sizeOf is about how many bytes a logged run takes in memory.
func sizeOf(r *eventsv1.Run) int { return 200 + 8*(len(r.Hashes)+len(r.Keys)+len(r.Shown)) }
